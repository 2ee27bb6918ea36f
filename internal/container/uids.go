package container

import (
	"errors"
	"hash/fnv"
)

// Each container has its own range of ids on the node, out of those that
// systemd sets aside for containers.
//
// Source: systemd, "Users, Groups, UIDs and GIDs on systemd Systems".
const (
	firstUID = 524288
	uidsEach = 65536
	uidSlots = (1879048192 - firstUID) / uidsEach
)

// uidBase picks a range for a container that none in taken has. The same ID
// gets the same range again while it is free.
func uidBase(id string, taken map[uint32]bool) (uint32, error) {
	h := fnv.New32a()
	h.Write([]byte(id))
	start := h.Sum32() % uidSlots
	for i := range uint32(uidSlots) {
		base := firstUID + (start+i)%uidSlots*uidsEach
		if !taken[base] {
			return base, nil
		}
	}
	return 0, errors.New("every range of user ids is taken by a container; delete some")
}
