// Package allocate decides which part of the machine each object has, and
// keeps the devices in step with that: placements and gangs by internal/place,
// partitions and shares of devices through the programs of their drivers. It
// starts nothing and knows no container; where placements are kept it is told.
// It depends on internal/object, internal/hardware, internal/inventory,
// internal/pack and internal/place.
package allocate
