// Package allocate decides which part of the machine each object has, and divides the devices to match:
// placements and gangs by internal/place, partitions and shares of devices through the programs of their
// drivers. It starts nothing and knows no container; its caller gives it the store of placements. It depends
// on internal/object, internal/hardware, internal/inventory, internal/pack and internal/place.
package allocate
