// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

type lock struct {
	resourcelock.Interface
	record resourcelock.LeaderElectionRecord
}

func (l *lock) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record := l.record
	return &record, []byte("raw"), nil
}

func TestALeaseIsReadWithNoLongerTermThanAReplicaAsksFor(t *testing.T) {
	t.Parallel()
	type record = resourcelock.LeaderElectionRecord
	for name, test := range map[string]struct {
		live, want record
		reported   bool
	}{
		"an honest lease": {
			record{HolderIdentity: "a", LeaseDurationSeconds: 15, LeaderTransitions: 7},
			record{HolderIdentity: "a", LeaseDurationSeconds: 15, LeaderTransitions: 7},
			false,
		},
		"a released lease": {record{LeaseDurationSeconds: 1}, record{LeaseDurationSeconds: 1}, false},
		"a day": {
			record{HolderIdentity: "a", LeaseDurationSeconds: 86_400}, record{HolderIdentity: "a", LeaseDurationSeconds: 15}, true,
		},
		"the longest": {
			record{HolderIdentity: "a", LeaseDurationSeconds: math.MaxInt32}, record{HolderIdentity: "a", LeaseDurationSeconds: 15}, true,
		},
		"no count after this":   {record{LeaderTransitions: math.MaxInt32}, record{}, false},
		"a count below nothing": {record{LeaderTransitions: -1}, record{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reports := 0
			bounded := &boundedLock{Interface: &lock{record: test.live}, report: func(context.Context, record) { reports++ }}
			for range 3 {
				got, _, err := bounded.Get(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, *got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
			if reports > 1 || reports == 1 != test.reported {
				t.Errorf("reported %d times, want a report: %t", reports, test.reported)
			}
		})
	}
}
