package nvml

import (
	"context"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/hardware"
)

// Share brings a GPU into the state that a request asks for. It does all of it
// or, where a call is refused, takes back what it did and says what was
// refused.
func (l *Library) Share(ctx context.Context, r hardware.ShareRequest, o Options) (hardware.ShareAnswer, error) {
	answer := hardware.ShareAnswer{Schema: hardware.DriverSchema}
	d, err := l.Device(r.Device)
	if err != nil {
		return answer, err
	}
	mps := MPS{Control: o.MPSControl, Directory: r.Directory}
	switch r.Action {
	case hardware.SharePartition:
		err = d.leaveMPS(ctx, mps, r)
		if err == nil {
			answer.Partition, err = d.sharePartition(r, o)
		}
	case hardware.ShareUnpartition:
		err = d.unpartition(r.Profile, r.Start)
	case hardware.ShareExclusive, hardware.ShareWhole:
		mode := DefaultMode
		if r.Action == hardware.ShareExclusive {
			mode = ExclusiveProcess
		}
		if err = d.leaveMPS(ctx, mps, r); err == nil {
			err = d.whole(mode)
		}
	case hardware.ShareMPS:
		if r.Directory == "" {
			return answer, errors.New("share: MPS needs a directory")
		}
		if err = d.shareMPS(ctx, mps, r); err == nil && r.User != nil {
			answer.Env, answer.Mounts = mps.client(r.User)
		}
	case hardware.ShareIdle:
		if err = d.leaveMPS(ctx, mps, r); err == nil {
			err = d.become(DefaultMode)
		}
	default:
		err = fmt.Errorf("share: there is no action %q", r.Action)
	}
	return answer, err
}

// leaveMPS ends an MPS that an earlier owner left behind.
func (d *Device) leaveMPS(ctx context.Context, mps MPS, r hardware.ShareRequest) error {
	if r.Directory == "" {
		return nil
	}
	return d.wrap(mps.Stop(ctx))
}

func (d *Device) sharePartition(r hardware.ShareRequest, o Options) (*hardware.Partition, error) {
	if err := d.become(DefaultMode); err != nil {
		return nil, err
	}
	before, err := d.instances()
	if err != nil {
		return nil, err
	}
	i, err := d.partition(r.Profile, r.Start)
	if err != nil {
		return nil, err
	}
	for _, p := range d.partitions(o.capabilities(), []instance{i}) {
		return &p, nil
	}
	err = d.wrap(fmt.Errorf("the kernel driver shows no device nodes of partition %s below %s: load nvidia with its capabilities (nvidia-modprobe -f)", r.Profile, o.capabilities()))
	for _, old := range before {
		if old.id == i.id && len(old.compute) == len(i.compute) {
			return nil, err // it was there before: it is not ours to remove
		}
	}
	return nil, errors.Join(err, d.unpartition(r.Profile, r.Start))
}

// unpartition removes a partition, and switches MIG off after the last: an
// idle GPU is whole. One that is not there is no failure.
func (d *Device) unpartition(profile string, start int) error {
	all, err := d.instances()
	if err != nil {
		return err
	}
	left := len(all)
	for n := range all {
		if all[n].profile.Name == profile && all[n].start == start {
			if err := d.destroy(&all[n]); err != nil {
				return err
			}
			left--
		}
	}
	if left > 0 {
		return nil
	}
	return d.setMIG(false)
}

// whole makes the GPU one device of that compute mode.
func (d *Device) whole(mode ComputeMode) error {
	all, err := d.instances()
	if err != nil {
		return err
	}
	if len(all) > 0 {
		return d.wrap(&Error{Code: InUse, Detail: fmt.Sprintf("it is cut into %d partitions", len(all))})
	}
	if on, _ := d.migMode(); on {
		if err := d.setMIG(false); err != nil {
			return err
		}
	}
	return d.become(mode)
}

// become sets the compute mode where it is another. A GPU without modes, as in
// some virtual machines, is always in the default one.
func (d *Device) become(mode ComputeMode) error {
	now, err := d.ComputeMode()
	switch {
	case unsupported(err) && mode == DefaultMode:
		return nil
	case err == nil && now == mode:
		return nil
	}
	return d.SetComputeMode(mode)
}

// shareMPS has the GPU used through MPS alone, as NVIDIA advises: in exclusive
// mode no process can go past it.
func (d *Device) shareMPS(ctx context.Context, mps MPS, r hardware.ShareRequest) error {
	was, err := d.ComputeMode()
	if err != nil {
		return err
	}
	ran := mps.Running(ctx)
	if err := d.whole(ExclusiveProcess); err != nil {
		return err
	}
	uuid, err := d.UUID()
	if err == nil {
		err = mps.Start(ctx, uuid)
	}
	if err == nil {
		err = mps.Limit(ctx, r.Limit.Percent, int64(r.Limit.Memory))
	}
	if err == nil {
		return nil
	}
	err = d.wrap(err)
	if !ran {
		err = errors.Join(err, mps.Stop(ctx))
	}
	return errors.Join(err, d.SetComputeMode(was))
}
