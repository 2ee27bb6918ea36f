package place

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"oscine.dev/oscine/internal/printable"
)

// Sharing is how one device is divided.
type Sharing string

// The ways to share, from the strictest isolation: a whole device; hardware
// partitions (MIG), with memory, caches and faults of their own; MPS, with
// processors and memory by amount but one fault domain; turns by time, with
// nothing of one's own. A device changes from one to another only while nobody
// has a part of it, for all four need it to themselves.
const (
	Exclusive  Sharing = "exclusive"
	Partitions Sharing = "partitions"
	MPS        Sharing = "mps"
	TimeSlices Sharing = "time-slices"
)

// deviceUse is what has been given out of one device.
type deviceUse struct {
	sharing Sharing // "" while nobody has a part
	sharers int
	milli   int64
	memory  int64
	slices  uint64 // taken by partitions
	class   Class  // of those who take turns
	foreign uint64 // slices that partitions of others than our placements take

	// How many partitions of each profile there are, ours and others'.
	made, foreignMade [MaxProfiles]uint8
}

func (u *deviceUse) idle() bool { return u.sharers == 0 && u.foreign == 0 }

// deviceAsk is a part of a device that a request asks for.
type deviceAsk struct {
	Fraction
	class     Class
	objective time.Duration
}

func (r *Request) deviceAsk(i int) deviceAsk {
	return deviceAsk{r.Devices[i].Fraction, r.Class, r.Latency}
}

// grant decides how a device is shared for a request, or says why not. What is
// left over rates the choice: the smaller, the less it fragments.
//
// Real-time work gets a device or partition of its own; interactive work may
// share processors by MPS within what they have; batch work takes turns or runs
// behind others, and leaves partitions to those who need them unless there are
// some already.
func (u *deviceUse) grant(d *Device, ask deviceAsk) (g DeviceGrant, leftover int64, refusal string) {
	const worse = 2000 // on another device the better way may be free
	for i, way := range u.ways(ask) {
		var why string
		if g, leftover, why = way(d, ask); why == "" {
			g.ID, g.Fraction = d.ID, ask.Fraction
			return g, leftover + int64(i)*worse, ""
		}
		if refusal != "" {
			refusal += "; "
		}
		refusal += why
	}
	return DeviceGrant{}, 0, refusal
}

type sharingWay func(*Device, deviceAsk) (DeviceGrant, int64, string)

func (u *deviceUse) ways(ask deviceAsk) []sharingWay {
	switch {
	case ask.Whole():
		return []sharingWay{u.exclusive}
	case ask.Profile != "":
		return []sharingWay{u.partition}
	case ask.class == Realtime:
		return []sharingWay{u.partition, u.exclusive}
	case ask.class == Batch && u.sharing != Partitions:
		return []sharingWay{u.mps, u.turns}
	case ask.class == Batch:
		return []sharingWay{u.partition}
	}
	return []sharingWay{u.mps, u.partition, u.turns}
}

// busy says why a device that is shared in one way is not free for another.
func (u *deviceUse) busy(way Sharing) string {
	switch {
	case u.sharing == Exclusive:
		return "it is given out whole"
	case u.sharing != "" && u.sharing != way:
		return fmt.Sprintf("%s: it is shared by %s now, by %d", way, u.sharing, u.sharers)
	case u.foreign != 0 && way != Partitions:
		return fmt.Sprintf("%s: somebody else has cut it into partitions", way)
	}
	return ""
}

func (u *deviceUse) exclusive(d *Device, _ deviceAsk) (DeviceGrant, int64, string) {
	if why := u.busy(Exclusive); why != "" {
		return DeviceGrant{}, 0, why
	}
	return DeviceGrant{Sharing: Exclusive, Milli: 1000, Memory: d.Memory, Why: "the whole device"}, 0, ""
}

// partition takes the named profile or the smallest that holds the request,
// where it leaves most room.
func (u *deviceUse) partition(d *Device, ask deviceAsk) (DeviceGrant, int64, string) {
	if why := u.busy(Partitions); why != "" {
		return DeviceGrant{}, 0, why
	}
	if len(d.Profiles) == 0 {
		return DeviceGrant{}, 0, "partitions: the device has none"
	}
	order := make([]int, len(d.Profiles))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &d.Profiles[a], &d.Profiles[b]
		return cmp.Or(cmp.Compare(x.Slices, y.Slices), cmp.Compare(x.compute(), y.compute()))
	})
	all := 0
	for _, i := range order {
		p := &d.Profiles[i]
		share := int64(p.compute()) * 1000 / int64(d.computeSlices())
		fits := p.Name == ask.Profile
		why := "the partition asked for"
		if ask.Profile == "" {
			fits = share >= ask.Milli && p.Memory >= ask.Memory
			why = "the smallest partition that holds what is asked for"
		}
		if !fits || d.Memory > 0 && u.memory+p.Memory > d.Memory {
			continue // memory is cut into coarser slices than compute
		}
		if p.Instances > 0 && int(u.made[i])+int(u.foreignMade[i]) >= p.Instances {
			all = p.Instances
			continue
		}
		if start := u.bestStart(d, p); start >= 0 {
			left := int64(64-bits.OnesCount64(u.slices|u.foreign)) * 15
			return DeviceGrant{Sharing: Partitions, Profile: p.Name, Start: start, Milli: share, Memory: p.Memory,
				Why: fmt.Sprintf("%s, at slice %d", why, start)}, left, ""
		}
	}
	if all > 0 {
		return DeviceGrant{}, 0, fmt.Sprintf("partitions: there are %d of them, as many as the device can have", all)
	}
	return DeviceGrant{}, 0, "partitions: none that holds it is free"
}

func (p *Profile) compute() int { return cmp.Or(p.Compute, p.Slices) }

// computeSlices are those that the largest profile has.
func (d *Device) computeSlices() int {
	most := 1
	for i := range d.Profiles {
		most = max(most, d.Profiles[i].compute())
	}
	return most
}

// bestStart finds the free position of a profile that leaves the most
// positions to later partitions, or -1.
func (u *deviceUse) bestStart(d *Device, p *Profile) int {
	taken := u.slices | u.foreign
	start, best := -1, -1
	for _, s := range p.Starts {
		mask := sliceMask(s, p.Slices)
		if taken&mask != 0 {
			continue
		}
		open := 0
		for i := range d.Profiles {
			other := &d.Profiles[i]
			for _, at := range other.Starts {
				if (taken|mask)&sliceMask(at, other.Slices) == 0 {
					open += other.Slices
				}
			}
		}
		if open > best {
			start, best = s, open
		}
	}
	return start
}

func sliceMask(start, n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return (uint64(1)<<n - 1) << start
}

// amounts are the compute and memory that are counted for a share. What a
// request leaves open goes with what it names, in proportion: a share of half
// the processors has half of the memory, for somebody must have it.
func (d *Device) amounts(f Fraction) (milli, memory int64) {
	milli, memory = f.Milli, f.Memory
	switch {
	case d.Memory <= 0:
	case memory == 0:
		memory = d.Memory / 1000 * milli
	case milli == 0:
		milli = min(max(memory/(d.Memory/1000+1), 1), 1000)
	}
	return milli, memory
}

// room says what of a share does not fit beside the others.
func (u *deviceUse) room(d *Device, way Sharing, ask deviceAsk) (milli, memory int64, why string) {
	milli, memory = d.amounts(ask.Fraction)
	switch {
	case d.Shares < 2:
		why = fmt.Sprintf("%s: the device is given out whole only", way)
	case u.sharers >= d.Shares:
		why = fmt.Sprintf("%s: %d share it, the most that can", way, u.sharers)
	case u.milli+milli > 1000:
		why = fmt.Sprintf("%s: %d thousandths of its processors are promised, %d more are asked for", way, u.milli, milli)
	case memory > 0 && d.Memory <= 0:
		why = fmt.Sprintf("%s: its memory is unknown", way)
	case memory > 0 && u.memory+memory > d.Memory:
		why = fmt.Sprintf("%s: %s of its memory are free, %s are needed", way, printable.Bytes(max(d.Memory-u.memory, 0)), printable.Bytes(memory))
	}
	return milli, memory, why
}

// mps gives a percentage of the processors and a bound on memory. Batch runs
// behind the others.
func (u *deviceUse) mps(d *Device, ask deviceAsk) (DeviceGrant, int64, string) {
	if !d.MPS {
		return DeviceGrant{}, 0, "mps: the device or its driver has none"
	}
	if why := u.busy(MPS); why != "" {
		return DeviceGrant{}, 0, why
	}
	milli, memory, why := u.room(d, MPS, ask)
	if why != "" {
		return DeviceGrant{}, 0, why
	}
	g := DeviceGrant{Sharing: MPS, Milli: milli, Memory: memory, LowPriority: ask.class == Batch}
	g.Why = fmt.Sprintf("%d %% of the processors and %s by MPS", g.Percent(), printable.Bytes(memory))
	if g.LowPriority {
		g.Why += ", behind others' kernels"
	}
	return g, 1000 - u.milli - milli, ""
}

// turns shares by time: no promise on latency can be given, and none of those
// who share may be of another class.
func (u *deviceUse) turns(d *Device, ask deviceAsk) (DeviceGrant, int64, string) {
	if why := u.busy(TimeSlices); why != "" {
		return DeviceGrant{}, 0, why
	}
	milli, memory, why := u.room(d, TimeSlices, ask)
	switch {
	case why != "":
	case ask.objective > 0:
		why = fmt.Sprintf("time-slices: they keep no objective of %v", ask.objective)
	case u.sharing == TimeSlices && u.class != ask.class:
		why = fmt.Sprintf("time-slices: %s work takes turns there, and turns know no class", u.class)
	}
	if why != "" {
		return DeviceGrant{}, 0, why
	}
	return DeviceGrant{Sharing: TimeSlices, Milli: milli, Memory: memory,
		Why: "time slices: processors and memory are counted, but nothing enforces them"}, 1000 - u.milli - milli, ""
}

// holds reports whether what was granted before is still free.
func (u *deviceUse) holds(d *Device, g *DeviceGrant, class Class) bool {
	if u.busy(g.Sharing) != "" || u.sharers > 0 && g.Sharing == Exclusive || g.Milli < 0 || g.Memory < 0 {
		return false
	}
	switch g.Sharing {
	case Exclusive:
		return true
	case Partitions:
		i := slices.IndexFunc(d.Profiles, func(p Profile) bool { return p.Name == g.Profile })
		// Its partition may be there already, and count as somebody else's.
		return i >= 0 && slices.Contains(d.Profiles[i].Starts, g.Start) && u.slices&sliceMask(g.Start, d.Profiles[i].Slices) == 0 &&
			(d.Profiles[i].Instances == 0 || int(u.made[i]) < d.Profiles[i].Instances)
	case MPS, TimeSlices:
		turns := g.Sharing == TimeSlices && u.sharers > 0 && u.class != class
		return !turns && u.sharers < d.Shares && u.milli+g.Milli <= 1000 && (d.Memory == 0 || u.memory+g.Memory <= d.Memory)
	}
	return false
}

// give adds (sign 1) or takes back (-1) a grant.
func (u *deviceUse) give(d *Device, g DeviceGrant, class Class, sign int) {
	u.sharers += sign
	u.milli += int64(sign) * g.Milli
	u.memory += int64(sign) * g.Memory
	if i := slices.IndexFunc(d.Profiles, func(p Profile) bool { return p.Name == g.Profile }); g.Sharing == Partitions && i >= 0 {
		u.slices ^= sliceMask(g.Start, d.Profiles[i].Slices)
		u.made[i] += uint8(sign)
	}
	u.sharing, u.class = g.Sharing, class
	if u.sharers == 0 {
		u.sharing, u.class = "", Batch
	}
}

// Percent is the share of the processors as passed to MPS.
func (g *DeviceGrant) Percent() int { return int(min(max((g.Milli+9)/10, 1), 100)) }

// Existing says which partitions the device with that ID is cut into now, by
// profile and first slice. Those that no placement has are somebody else's, and
// their slices are not given out.
func (s *State) Existing(id string, partitions []DeviceGrant) {
	d := s.deviceIndex(id)
	if d < 0 {
		return
	}
	s.use[d].foreign, s.use[d].foreignMade = 0, [MaxProfiles]uint8{}
	for _, there := range partitions {
		i := slices.IndexFunc(s.machine.Devices[d].Profiles, func(p Profile) bool { return p.Name == there.Profile })
		if i >= 0 && !s.gave(id, there) {
			s.use[d].foreign |= sliceMask(there.Start, s.machine.Devices[d].Profiles[i].Slices)
			s.use[d].foreignMade[i]++
		}
	}
}

func (s *State) gave(id string, there DeviceGrant) bool {
	for _, p := range s.placed {
		for _, g := range p.Devices {
			if g.ID == id && g.Sharing == Partitions && g.Profile == there.Profile && g.Start == there.Start {
				return true
			}
		}
	}
	return false
}
