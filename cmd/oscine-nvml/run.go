package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/nvml"
)

// Bounds of what is read.
const (
	maxMap     = 64 << 20
	maxList    = 64 << 10
	maxRequest = 1 << 20
)

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("oscine-nvml", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	library := flags.String("library", "", "NVML; by default libnvidia-ml.so.1 from where drivers put it")
	var o nvml.Options
	flags.StringVar(&o.Capabilities, "capabilities", "", "where the kernel driver lists MIG's device nodes")
	flags.StringVar(&o.MPSControl, "mps-control", "", "nvidia-cuda-mps-control")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		return errors.Join(err, errors.New("usage: oscine-nvml [--library FILE] [--capabilities DIR] [--mps-control FILE] probe|load|events|share"))
	}
	switch verb := flags.Arg(0); verb {
	case "probe":
		return probe(*library, o, in, out)
	case "load":
		return load(*library, in, out)
	case "events":
		return events(ctx, *library, in, out)
	case "share":
		return share(ctx, *library, o, in, out)
	default:
		return fmt.Errorf("there is no verb %q: use probe, load, events or share", verb)
	}
}

func probe(library string, o nvml.Options, in io.Reader, out io.Writer) (err error) {
	text, err := io.ReadAll(io.LimitReader(in, maxMap))
	if err != nil {
		return err
	}
	m, err := hardware.Decode(text)
	if err != nil {
		return err
	}
	if len(nvml.Mine(m)) == 0 {
		return json.NewEncoder(out).Encode(hardware.DriverReport{Schema: hardware.DriverSchema})
	}
	l, err := nvml.Open(library)
	if err != nil {
		return json.NewEncoder(out).Encode(nvml.Failed(m, err))
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return json.NewEncoder(out).Encode(l.Probe(m, o))
}

// devices opens the library and finds the GPUs of the list on the first line of
// the input. One that cannot be reached is left out.
func devices(library string, in *bufio.Reader) (*nvml.Library, []*nvml.Device, error) {
	first, err := in.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read the list of addresses: %w", err)
	}
	var addresses []string
	if err := json.Unmarshal(first, &addresses); err != nil {
		return nil, nil, fmt.Errorf("read the list of addresses: %w", err)
	}
	l, err := nvml.Open(library)
	if err != nil {
		return nil, nil, err
	}
	var list []*nvml.Device
	for _, address := range addresses {
		if d, err := l.Device(address); err == nil {
			list = append(list, d)
		}
	}
	return l, list, nil
}

func load(library string, in io.Reader, out io.Writer) (err error) {
	l, list, err := devices(library, bufio.NewReaderSize(in, maxList))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	report := hardware.LoadReport{Schema: hardware.DriverSchema, Devices: map[string]hardware.DeviceLoad{}}
	for _, d := range list {
		report.Devices[d.Address] = d.Load()
	}
	return json.NewEncoder(out).Encode(report)
}

// events prints until the input ends, which tells that nobody listens any more.
func events(ctx context.Context, library string, in io.Reader, out io.Writer) (err error) {
	lines := bufio.NewReaderSize(in, maxList)
	l, list, err := devices(library, lines)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		end()
	}()
	encoder := json.NewEncoder(out)
	return l.Events(ctx, list, func(e hardware.DriverEvent) error { return encoder.Encode(e) })
}

func share(ctx context.Context, library string, o nvml.Options, in io.Reader, out io.Writer) (err error) {
	var request hardware.ShareRequest
	decoder := json.NewDecoder(io.LimitReader(in, maxRequest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if request.Schema != hardware.DriverSchema {
		return fmt.Errorf("the request's schema is %q, not %s", request.Schema, hardware.DriverSchema)
	}
	l, err := nvml.Open(library)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	answer, err := l.Share(ctx, request, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}
