package sim

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// At are the percents of arrived demand at which results are summed up, those
// of the published tables.
func At() []int { return []int{50, 70, 90, 95, 100, 110, 120, 130} }

// measure is one quantity of a curve.
type measure struct {
	name  string
	value func(c *Curve, at int) float64
}

func measures() []measure {
	return []measure{
		{"alloc", func(c *Curve, at int) float64 { return c.Allocated[at] }},
		{"frag", func(c *Curve, at int) float64 { return c.Fragmented[at] }},
		{"fragratio", func(c *Curve, at int) float64 { return c.FragOfIdle[at] }},
	}
}

// field is one column of a summary: its name, such as alloc_100_mean, and
// value; NaN where nothing arrived at that percent.
type field struct {
	name  string
	value float64
}

// fields are the columns of a result in the order of the published tables.
func (r *Result) fields() []field {
	var all []field
	for _, m := range measures() {
		for _, at := range At() {
			mean, deviation := meanAndDeviation(r.Curves, func(c *Curve) float64 { return m.value(c, at) })
			prefix := fmt.Sprintf("%s_%d_", m.name, at)
			all = append(all, field{prefix + "mean", mean}, field{prefix + "sd", deviation})
		}
	}
	return all
}

func number(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// WriteCSV writes one row a result, in the form of the published summary.
func WriteCSV(w io.Writer, results []Result) error {
	out := csv.NewWriter(w)
	for i := range results {
		header, row := []string{"workload", "policy", "seeds"}, []string{results[i].Workload, results[i].Policy, strconv.Itoa(len(results[i].Curves))}
		for _, f := range results[i].fields() {
			header, row = append(header, f.name), append(row, number(f.value))
		}
		if i == 0 {
			if err := out.Write(header); err != nil {
				return err
			}
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// Documents are the results for JSON and YAML: a list of objects with the columns
// of the published summary; a value is null where nothing arrived at that
// percent.
func Documents(results []Result) []map[string]any {
	objects := []map[string]any{}
	for i := range results {
		object := map[string]any{"workload": results[i].Workload, "policy": results[i].Policy, "seeds": len(results[i].Curves)}
		for _, f := range results[i].fields() {
			object[f.name] = nil
			if !math.IsNaN(f.value) {
				object[f.name] = math.Round(f.value*1000) / 1000
			}
		}
		objects = append(objects, object)
	}
	return objects
}

// Published holds published means by workload, policy and column.
type Published map[[2]string]map[string]float64

// ReadPublished reads a summary in the form that WriteCSV writes.
func ReadPublished(r io.Reader, file string) (Published, error) {
	rows, err := csv.NewReader(io.LimitReader(r, maxTraceSize)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(rows) == 0 || len(rows[0]) < 3 || rows[0][0] != "workload" || rows[0][1] != "policy" {
		return nil, fmt.Errorf("%s: the first columns must be workload and policy", file)
	}
	p := Published{}
	for i, row := range rows[1:] {
		values := map[string]float64{}
		for c := 2; c < len(row); c++ {
			if row[c] == "" {
				continue
			}
			v, err := strconv.ParseFloat(row[c], 64)
			if err != nil {
				return nil, &rowError{file, i + 2, fmt.Sprintf("%s: %q is not a number", rows[0][c], row[c])}
			}
			values[rows[0][c]] = v
		}
		p[[2]string{row[0], row[1]}] = values
	}
	return p, nil
}

// of returns what was published for a result; for a policy of our own it is
// FGD's, to compare with.
func (p Published) of(r *Result) map[string]float64 {
	name := publishedName(r.Policy)
	if name == r.Policy {
		name = publishedName("fgd")
	}
	return p[[2]string{r.Workload, name}]
}

// WriteTable writes a table for people: allocated GPU at some percents of
// arrived demand and what is fragmented; where published is given, its figure
// and the difference stand beside.
func WriteTable(w io.Writer, results []Result, published Published) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	columns := []string{"alloc_90_mean", "alloc_100_mean", "alloc_130_mean", "frag_100_mean"}
	titles := []string{"at 90 %", "at 100 %", "at 130 %", "frag at 100 %"}
	header := "workload\tpolicy\tseeds\t" + strings.Join(titles, "\t") + "\tplaced\tdropped\t"
	if published != nil {
		columns, header = columns[1:3], "workload\tpolicy\tseeds\tat 100 %\tpublished\tdifference\tat 130 %\tpublished\tdifference\t"
	}
	fmt.Fprintln(tab, header)
	for i := range results {
		r := &results[i]
		values := map[string]float64{}
		for _, f := range r.fields() {
			values[f.name] = f.value
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t", r.Workload, r.Policy, len(r.Curves))
		for _, c := range columns {
			fmt.Fprintf(tab, "%s\t", short(values[c]))
			if published == nil {
				continue
			}
			if want, ok := published.of(r)[c]; ok {
				fmt.Fprintf(tab, "%s\t%+.2f\t", short(want), values[c]-want)
			} else {
				fmt.Fprint(tab, "-\t-\t")
			}
		}
		if published == nil {
			placed, dropped := r.counts()
			fmt.Fprintf(tab, "%d\t%d\t", placed, dropped)
		}
		fmt.Fprintln(tab)
	}
	if err := tab.Flush(); err != nil || published == nil {
		return err
	}
	_, err := fmt.Fprintln(w, "beside oscine, of which nothing is published, stands FGD's figure")
	return err
}

func short(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// counts are the mean placements and drops of a seed.
func (r *Result) counts() (placed, dropped int) {
	for _, c := range r.Curves {
		placed += c.Placements
		dropped += c.Dropped
	}
	return placed / len(r.Curves), dropped / len(r.Curves)
}
