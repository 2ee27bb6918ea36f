package sim

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/place"
)

// Bounds on what is read.
const (
	maxRows      = 1_000_000
	maxTraceSize = 256 << 20 // bytes
	maxRowErrors = 20        // reported of one file
)

// Pod is one piece of work of a trace.
type Pod struct {
	Name  string
	Shape place.Shape // memory in MiB
}

// rowError is one broken row of a trace.
type rowError struct {
	file   string
	line   int
	reason string
}

func (e *rowError) Error() string { return fmt.Sprintf("%s:%d: %s", e.file, e.line, e.reason) }

// ReadNodes reads an openb node list: sn, cpu_milli, memory_mib, gpu, model.
// Every broken row is reported, up to a bound.
func ReadNodes(r io.Reader, file string) ([]place.FleetNode, error) {
	var nodes []place.FleetNode
	err := readTable(r, file, []string{"sn", "cpu_milli", "memory_mib", "gpu", "model"}, nil, func(row row) {
		nodes = append(nodes, place.FleetNode{
			Name: row.text("sn"), MilliCPU: row.number("cpu_milli"), Memory: row.number("memory_mib"),
			GPUs: int(row.numberUpTo("gpu", place.MaxFleetGPUs)), Model: row.text("model"),
		})
	})
	if err == nil && len(nodes) == 0 {
		err = fmt.Errorf("%s: no nodes", file)
	}
	return nodes, err
}

// ReadPods reads an openb pod list: name, cpu_milli, memory_mib, num_gpu,
// gpu_milli and, where there is one, gpu_spec with models joined by "|". Other
// columns are skipped. Every broken row is reported, up to a bound.
func ReadPods(r io.Reader, file string) ([]Pod, error) {
	var pods []Pod
	names := map[string]bool{}
	err := readTable(r, file, []string{"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}, []string{"gpu_spec"}, func(row row) {
		p := Pod{Name: row.text("name"), Shape: place.Shape{
			MilliCPU: row.number("cpu_milli"), Memory: row.number("memory_mib"),
			GPUs: int(row.numberUpTo("num_gpu", place.MaxFleetGPUs)), MilliGPU: row.numberUpTo("gpu_milli", 1000),
		}}
		if spec := row.text("gpu_spec"); spec != "" {
			p.Shape.Models = strings.Split(spec, "|")
			slices.Sort(p.Shape.Models)
		}
		switch s := p.Shape; {
		case p.Name == "" || names[p.Name]:
			row.bad("the name %q is empty or used twice", p.Name)
		case s.GPUs == 0 && s.MilliGPU > 0, s.GPUs > 0 && s.MilliGPU == 0, s.GPUs > 1 && s.MilliGPU < 1000:
			row.bad("%d GPUs of %d thousandths each contradict each other", s.GPUs, s.MilliGPU)
		}
		names[p.Name] = true
		pods = append(pods, p)
	})
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("%s: no pods", file)
	}
	return pods, err
}

// row is one row of a table under its header.
type row struct {
	fields  []string
	columns map[string]int
	bad     func(format string, args ...any)
}

func (r row) text(column string) string {
	i, ok := r.columns[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(r.fields[i])
}

func (r row) number(column string) int64 { return r.numberUpTo(column, 1<<40) }

func (r row) numberUpTo(column string, most int64) int64 {
	text := r.text(column)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		r.bad("%s must be a whole number from 0 to %d, got %q", column, most, text)
		return 0
	}
	return n
}

func readTable(r io.Reader, file string, required, optional []string, each func(row)) error {
	in := csv.NewReader(io.LimitReader(r, maxTraceSize))
	in.ReuseRecord = true
	header, err := in.Read()
	if err != nil {
		return fmt.Errorf("%s: read the header: %w", file, err)
	}
	columns := map[string]int{}
	for i, name := range header {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		if slices.Contains(required, name) || slices.Contains(optional, name) {
			columns[name] = i
		}
	}
	for _, name := range required {
		if _, ok := columns[name]; !ok {
			return fmt.Errorf("%s: no column %q in the header; want %s", file, name, strings.Join(required, ","))
		}
	}
	var errs []error
	for n := 0; ; n++ {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if n >= maxRows {
			return errors.Join(append(errs, fmt.Errorf("%s: more than %d rows", file, maxRows))...)
		}
		if err != nil {
			var parse *csv.ParseError
			if !errors.As(err, &parse) {
				return fmt.Errorf("read %s: %w", file, err)
			}
			errs = append(errs, &rowError{file, parse.StartLine, parse.Err.Error()})
		} else {
			bad := false
			line, _ := in.FieldPos(0)
			each(row{fields: fields, columns: columns, bad: func(format string, args ...any) {
				if !bad {
					errs = append(errs, &rowError{file, line, fmt.Sprintf(format, args...)})
				}
				bad = true
			}})
		}
		if len(errs) >= maxRowErrors {
			errs = append(errs, fmt.Errorf("%s: further rows were not checked", file))
			break
		}
	}
	return errors.Join(errs...)
}
