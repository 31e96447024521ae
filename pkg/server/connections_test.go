// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pipe is one end of a connection that knows whether it was closed.
type pipe struct {
	net.Conn
	closed bool
}

func (p *pipe) Close() error {
	p.closed = true
	return nil
}

// crowd is a table of four connections, and those that were added to it, in turn.
type crowd struct {
	*connections
	members []*conn
	// source is the address of those that are added next.
	source string
}

// from sets the address of those that are added next.
func (c *crowd) from(address string) *crowd {
	c.source = address
	return c
}

func (c *crowd) add(n int) {
	for range n {
		member := &conn{raw: &hello{Conn: &pipe{}}, table: c.connections}
		if c.source != "" {
			member.source = sourceOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.source)))
		}
		if !c.connections.add(member) {
			member.cut()
		}
		c.members = append(c.members, member)
	}
}

// closed returns the numbers of the connections that were closed.
func (c *crowd) closed() []int {
	var closed []int
	for i, member := range c.members {
		if member.raw.Conn.(*pipe).closed {
			closed = append(closed, i)
		}
	}
	return closed
}

func TestWhichConnectionMakesRoom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		play func(*crowd)
		want []int
	}{
		"none while there is room":                            {func(c *crowd) { c.add(2) }, nil},
		"of the silent ones, the one that has waited longest": {func(c *crowd) { c.add(4) }, []int{0, 1}},
		"a silent one before one that has sent something": {func(c *crowd) {
			c.add(1)
			c.heard(c.members[0])
			c.add(2)
		}, []int{1}},
		"of those that sent something, the one that has owed longest": {func(c *crowd) {
			c.add(2)
			c.heard(c.members[1])
			c.heard(c.members[0])
			c.add(1)
		}, []int{1}},
		"not the only silent one, as it is new": {func(c *crowd) {
			c.max = 8
			c.add(3)
			for i := range 3 {
				c.heard(c.members[i])
			}
			c.add(2)
		}, []int{0}},
		"no idle one while others owe": {func(c *crowd) {
			c.add(1)
			c.answered(c.members[0])
			c.add(10)
		}, []int{1, 2, 3, 4, 5, 6, 7, 8}},
		"of idle ones, the one that was used longest ago": {func(c *crowd) {
			for i := range 4 {
				c.add(1)
				c.answered(c.members[i])
			}
			c.answering(c.members[0])
			c.answered(c.members[0])
			c.add(1)
		}, []int{1}},
		"an idle one that begins a request counts as owing": {func(c *crowd) {
			for i := range 3 {
				c.add(1)
				c.answered(c.members[i])
			}
			for i := range 3 {
				c.heard(c.members[i])
			}
		}, []int{0}},
		"none that is in use: the new one goes": {func(c *crowd) {
			for i := range 4 {
				c.add(1)
				c.answering(c.members[i])
			}
			c.add(1)
		}, []int{4}},
		"one that was closed stays out": {func(c *crowd) {
			c.add(3)
			c.answered(c.members[0])
			c.owes(c.members[0])
			c.remove(c.members[0])
			c.remove(c.members[0])
			c.add(1)
		}, []int{0, 1}},
		"one of the address with most, though another has waited longer": {func(c *crowd) {
			c.max = 8
			c.from("10.0.0.1:1").add(1)
			c.from("10.0.0.2:1").add(6)
			c.from("10.0.0.1:2").add(1)
		}, []int{1, 2, 3, 4}},
		"of a new address that has more": {func(c *crowd) {
			c.max = 8
			c.from("10.0.0.1:1").add(1)
			c.from("10.0.0.1:2").add(1)
			c.from("[2001:db8::1]:1").add(1)
			c.from("[2001:db8::2]:1").add(1)
			c.from("[2001:db8:0:1::1]:1").add(1)
			c.from("[2001:db8::3]:1").add(1)
		}, []int{0, 2}},
		"the idle one of the address with most": {func(c *crowd) {
			c.from("10.0.0.1:1").add(1)
			c.answered(c.members[0])
			for i := range 3 {
				c.from("[::ffff:10.0.0.2]:1").add(1)
				c.answered(c.members[i+1])
			}
			c.from("10.0.0.1:2").add(1)
		}, []int{1}},
		"the one that has waited longest, of many addresses with one each": {func(c *crowd) {
			c.max = 8
			for _, address := range []string{"10.0.0.4:1", "10.0.0.3:1", "10.0.0.2:1", "10.0.0.1:1", "10.0.0.5:1"} {
				c.from(address).add(1)
			}
		}, []int{0}},
		"for want of a file descriptor, as for want of room": {func(c *crowd) {
			c.add(2)
			c.makeRoom()
			c.makeRoom()
			c.makeRoom()
		}, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &crowd{connections: newConnections(4)}
			test.play(c)
			if diff := cmp.Diff(test.want, c.closed()); diff != "" {
				t.Errorf("closed (-want +got)\n%s", diff)
			}
			left := slices.DeleteFunc(slices.Clone(c.members), func(m *conn) bool { return !m.isOpen })
			if c.open != len(left) {
				t.Errorf("the table counts %d, and has %d", c.open, len(left))
			}
		})
	}
}
