// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// EKS names contexts by ARN. The same record may be in two clusters.
func TestRecordsOfSeveralClusters(t *testing.T) {
	t.Parallel()
	const arn, other, hostile = "arn:aws:eks:eu-1:1:cluster/prod", "b", "../c'$(d)/"
	feed := NewFeed(arn, other, hostile, "gone", "slow")
	for _, at := range []int{0, 1} {
		feed.Source(at).Reached(nil)
		feed.Source(at).Changed(sample()[0])
	}
	feed.Source(1).Changed(sample()[1])
	feed.Source(1).Changed(sample()[2])
	feed.Source(2).Changed(sample()[1])
	feed.Source(2).Removed(sample()[0].Name)
	feed.Source(2).Guarded(Guard{State: GuardUp})
	feed.Source(3).Reached(errors.New("connection refused"))
	page := New(feed, "5 clusters")
	for query, want := range map[string][]string{
		"":                                   {arn, other, hostile, other, other},
		"?cluster=" + url.QueryEscape(arn):   {arn},
		"?cluster=b&outcome=Denied":          {other, other},
		"?cluster=b&outcome=Denied&size=1":   {other},
		"?cluster=absent":                    nil,
		"?cluster=slow":                      nil,
		"?user=malice":                       {other, hostile},
		"?cluster=" + url.QueryEscape(other): {other, other, other},
	} {
		var got view
		get(t, page, "api/view"+query, 200, &got)
		var clusters []string
		for _, row := range got.Rows {
			clusters = append(clusters, row.Cluster)
			var one struct {
				Name, Cluster string
				Parts         []part
			}
			get(t, page, "api/records/"+url.PathEscape(row.ID), 200, &one)
			last := one.Parts[len(one.Parts)-1].Text
			if one.Name != row.Name || one.Cluster != row.Cluster || !strings.HasSuffix(last, map[string]string{
				arn: " --context " + arn, other: " --context b", hostile: ` --context '../c'\''$(d)/'`,
			}[row.Cluster]) {
				t.Errorf("%s: got %+v", row.ID, one)
			}
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(clusters))); diff != "" {
			t.Errorf("%s: -want +got\n%s", query, diff)
		}
		if len(got.Clusters) != 5 || got.Clusters[3].Lost == "" || got.Clusters[4].Answered || got.Clusters[2].Guard.State != GuardUp || got.Lost != "" {
			t.Errorf("%s: got %+v", query, got.Clusters)
		}
	}
	var got view
	get(t, page, "api/view?cluster=b&outcome=Denied", 200, &got)
	var counts []string
	for _, c := range got.Clusters {
		counts = append(counts, fmt.Sprint(c.Records, c.Writes, c.Denied))
	}
	if diff := cmp.Diff([]string{"1 1 1", "2 2 2", "1 1 1", "0 0 0", "0 0 0"}, counts); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
