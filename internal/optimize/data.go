package optimize

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/tensor"
)

// LabelsFile is the name of the file with labels beside the data.
const LabelsFile = "labels.txt"

// Bounds of the data.
const (
	maxData    = 4 << 30 // bytes of all arrays
	maxSamples = 1 << 20
	maxLabels  = 16 << 20
)

// dataSuffixes are those of the files that are read.
func dataSuffixes() []string { return []string{".npy", ".npz", ".png", ".jpg", ".jpeg", ".gif"} }

// ErrNoData means that a folder holds nothing that is read.
var ErrNoData = errors.New("no data to calibrate with")

// DataFiles lists the files of a folder that are read, in the order of their names,
// the one with labels last.
func DataFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	labels := false
	for _, e := range entries {
		switch suffix := strings.ToLower(filepath.Ext(e.Name())); {
		case e.IsDir():
		case e.Name() == LabelsFile:
			labels = true
		case slices.Contains(dataSuffixes(), suffix):
			files = append(files, e.Name())
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds none of %s", ErrNoData, printable.Text(dir), strings.Join(dataSuffixes(), ", "))
	}
	if labels {
		files = append(files, LabelsFile)
	}
	return files, nil
}

// Sample is what the model is run with once: a tensor for each input, in their order.
type Sample []Tensor

// Tensor is values with their shape, little-endian and row by row.
type Tensor struct {
	Type  tensor.DataType
	Shape tensor.Shape
	Data  []byte
}

// Data is what was read.
type Data struct {
	Samples []Sample
	Labels  []int // one for each sample; nil: there are none
	Files   int
}

// ReadData reads a folder for a model with these inputs. A .npz file holds an array for
// each input, by its name; a .npy file and a picture are for a model with one input.
// Arrays may hold several rows along the first dimension: each is a sample.
func ReadData(dir string, inputs []tensor.Spec) (*Data, error) {
	names, err := DataFiles(dir)
	if err != nil {
		return nil, err
	}
	d := &Data{}
	var total int64
	for _, name := range names {
		if name == LabelsFile {
			continue
		}
		arrays, err := readArrays(filepath.Join(dir, name), inputs)
		if err == nil {
			var rows []Sample
			rows, err = split(arrays, inputs)
			d.Samples, d.Files = append(d.Samples, rows...), d.Files+1
		}
		for _, a := range arrays {
			total += int64(len(a.Data))
		}
		if err == nil && total > maxData {
			err = fmt.Errorf("the folder holds more than %d bytes of data: use fewer files", int64(maxData))
		}
		if err == nil && len(d.Samples) > maxSamples {
			err = fmt.Errorf("the folder holds more than %d rows of data: use fewer files", maxSamples)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", printable.Text(name), err)
		}
	}
	if names[len(names)-1] == LabelsFile {
		d.Labels, err = readLabels(filepath.Join(dir, LabelsFile), len(d.Samples))
	}
	return d, err
}

func readArrays(file string, inputs []tensor.Spec) ([]Tensor, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	suffix := strings.ToLower(filepath.Ext(file))
	if suffix == ".npz" {
		return readNPZ(f, inputs)
	}
	if len(inputs) != 1 {
		return nil, fmt.Errorf("the model has %d inputs (%s): give a .npz file with an array for each, by its name", len(inputs), inputNames(inputs))
	}
	if suffix == ".npy" {
		t, err := readNPY(f)
		return []Tensor{t}, err
	}
	img, err := picture.Decode(f)
	if err != nil {
		return nil, err
	}
	data, shape, err := picture.Tensor(img, inputs[0])
	return []Tensor{{inputs[0].Type, shape, data}}, err
}

func inputNames(inputs []tensor.Spec) string {
	var names []string
	for _, s := range inputs {
		names = append(names, printable.Text(s.Name))
	}
	return strings.Join(names, ", ")
}

// readNPZ reads what numpy.savez writes: a zip file with NAME.npy for each array.
func readNPZ(f *os.File, inputs []tensor.Spec) ([]Tensor, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("it is no .npz file: %w", err)
	}
	arrays := make([]Tensor, len(inputs))
	for i, spec := range inputs {
		at := slices.IndexFunc(z.File, func(m *zip.File) bool { return m.Name == spec.Name+".npy" })
		if at < 0 {
			return nil, fmt.Errorf("it has no array for the input %q: the model's inputs are %s", spec.Name, inputNames(inputs))
		}
		member, err := z.File[at].Open()
		if err != nil {
			return nil, err
		}
		arrays[i], err = readNPY(member)
		if err = errors.Join(err, member.Close()); err != nil {
			return nil, fmt.Errorf("array %q: %w", spec.Name, err)
		}
	}
	return arrays, nil
}

// split makes samples of arrays: one for each row where all have rows that the model
// takes one by one, else one alone.
func split(arrays []Tensor, inputs []tensor.Spec) ([]Sample, error) {
	for i := range arrays {
		a, spec := &arrays[i], &inputs[i]
		if a.Type != spec.Type {
			return nil, fmt.Errorf("input %q takes %s, the array holds %s", spec.Name, spec.Type, a.Type)
		}
		if !spec.AnyRank && len(a.Shape) == len(spec.Shape)-1 && len(spec.Shape) > 0 && (spec.Shape[0] == 1 || spec.Shape[0] == -1) {
			a.Shape = append(tensor.Shape{1}, a.Shape...) // a row without the dimension of rows
		}
	}
	rows := rowsOf(arrays[0].Shape, &inputs[0])
	for i := range arrays {
		if rowsOf(arrays[i].Shape, &inputs[i]) != rows {
			rows = -1
		}
	}
	if rows < 0 {
		for i := range arrays {
			if err := inputs[i].Accepts(arrays[i].Shape); err != nil {
				return nil, fmt.Errorf("input %q: %w", inputs[i].Name, err)
			}
		}
		return []Sample{arrays}, nil
	}
	if rows > maxSamples { // a compressed file of a megabyte may hold a billion rows
		return nil, fmt.Errorf("the array has %d rows, at most %d are read: some hundred are enough", rows, maxSamples)
	}
	samples := make([]Sample, rows)
	for r := range samples {
		for _, a := range arrays {
			size := len(a.Data) / int(rows)
			shape := slices.Clone(a.Shape)
			shape[0] = 1
			samples[r] = append(samples[r], Tensor{a.Type, shape, a.Data[r*size:][:size]})
		}
	}
	return samples, nil
}

// rowsOf is how many rows an array has that the model takes one by one, -1 where it
// has to be taken as it is.
func rowsOf(shape tensor.Shape, spec *tensor.Spec) int64 {
	if spec.AnyRank || len(shape) == 0 || len(shape) != len(spec.Shape) || spec.Shape[0] != 1 && spec.Shape[0] != -1 || shape[0] < 1 {
		return -1
	}
	one := slices.Clone(shape)
	one[0] = 1
	if spec.Accepts(one) != nil {
		return -1
	}
	return shape[0]
}

func readLabels(file string, want int) ([]int, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxLabels)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", LabelsFile, err)
	}
	var labels []int
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s, line %d: %.40q is no number of a class: write one number a line, from 0", LabelsFile, i+1, strings.TrimSpace(line))
		}
		labels = append(labels, n)
	}
	if len(labels) != want {
		return nil, fmt.Errorf("%s has %d labels for %d rows of data: give one for each, in the order of the files' names", LabelsFile, len(labels), want)
	}
	return labels, nil
}

// Divide holds back every second sample, by which the result is judged: what a
// model was calibrated with says little of how it does elsewhere.
func (d *Data) Divide() (calibrate []Sample, held *Data, err error) {
	if len(d.Samples) < 2 {
		return nil, nil, fmt.Errorf("%w: one row is not enough, for a part is held back to measure the accuracy: give some hundred", ErrNoData)
	}
	held = &Data{Files: d.Files}
	for i, s := range d.Samples {
		if i%2 == 0 {
			calibrate = append(calibrate, s)
			continue
		}
		held.Samples = append(held.Samples, s)
		if d.Labels != nil {
			held.Labels = append(held.Labels, d.Labels[i])
		}
	}
	return calibrate, held, nil
}

// readAll reads exactly n bytes without trusting n.
func readAll(r io.Reader, n int64) ([]byte, error) {
	var b bytes.Buffer
	got, err := io.Copy(&b, io.LimitReader(r, n))
	if err == nil && got < n {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}
