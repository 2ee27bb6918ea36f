package optimize

import (
	"archive/zip"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/tensor"
)

// npy is an array as NumPy writes it.
func npy(t testing.TB, a Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteNPY(&b, a); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func npz(t testing.TB, arrays map[string]Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, a := range arrays {
		w, err := z.Create(name + ".npy")
		if err == nil {
			_, err = w.Write(npy(t, a))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func lay(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func spec(name string, shape ...int64) tensor.Spec {
	return tensor.Spec{Name: name, Type: tensor.FP32, Shape: shape}
}

func TestReadData(t *testing.T) {
	rows := fp32(tensor.Shape{3, 2}, 1, 2, 3, 4, 5, 6)
	state := fp32(tensor.Shape{2, 1}, 7, 8)
	for name, test := range map[string]struct {
		inputs []tensor.Spec
		files  map[string][]byte
		want   []tensor.Shape // of the first input of each sample
	}{
		"rows one by one":       {[]tensor.Spec{spec("x", -1, 2)}, map[string][]byte{"a.npy": npy(t, rows)}, []tensor.Shape{{1, 2}, {1, 2}, {1, 2}}},
		"of a fixed single row": {[]tensor.Spec{spec("x", 1, 2)}, map[string][]byte{"a.npy": npy(t, rows)}, []tensor.Shape{{1, 2}, {1, 2}, {1, 2}}},
		"a row without its one": {[]tensor.Spec{spec("x", 1, 3, 2)}, map[string][]byte{"a.npy": npy(t, rows)}, []tensor.Shape{{1, 3, 2}}},
		"as it is":              {[]tensor.Spec{spec("x", 3, 2)}, map[string][]byte{"a.npy": npy(t, rows)}, []tensor.Shape{{3, 2}}},
		"several files":         {[]tensor.Spec{spec("x", -1, 2)}, map[string][]byte{"b.npy": npy(t, rows), "a.npz": npz(t, map[string]Tensor{"x": rows}), "README": nil}, slices.Repeat([]tensor.Shape{{1, 2}}, 6)},
		"a state beside rows":   {[]tensor.Spec{spec("x", -1, 2), spec("state", 2, 1)}, map[string][]byte{"a.npz": npz(t, map[string]Tensor{"x": rows, "state": state, "more": state})}, []tensor.Shape{{3, 2}}},
	} {
		data, err := ReadData(lay(t, test.files), test.inputs)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []tensor.Shape
		for _, s := range data.Samples {
			got = append(got, s[0].Shape)
			if n, err := s[0].Shape.Bytes(tensor.FP32); err != nil || n != len(s[0].Data) {
				t.Errorf("%s: %d bytes in the shape %s", name, len(s[0].Data), s[0].Shape)
			}
		}
		if !slices.EqualFunc(got, test.want, func(a, b tensor.Shape) bool { return slices.Equal(a, b) }) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestBadData(t *testing.T) {
	x := []tensor.Spec{spec("x", -1, 2)}
	rows := fp32(tensor.Shape{3, 2}, 1, 2, 3, 4, 5, 6)
	bytesOf := func(old, replaced string) []byte {
		return bytes.Replace(npy(t, rows), []byte(old), []byte(replaced), 1)
	}
	for name, test := range map[string]struct {
		inputs []tensor.Spec
		files  map[string][]byte
		want   string
	}{
		"nothing":           {x, map[string][]byte{"notes.md": nil}, "holds none of .npy, .npz, .png"},
		"another shape":     {x, map[string][]byte{"a.npy": npy(t, fp32(tensor.Shape{1, 3}, 1, 2, 3))}, `a.npy: input "x": `},
		"another type":      {x, map[string][]byte{"a.npy": npy(t, Tensor{tensor.FP64, tensor.Shape{1, 2}, make([]byte, 16)})}, `input "x" takes FP32, the array holds FP64`},
		"several inputs":    {[]tensor.Spec{spec("x", 1), spec("y", 1)}, map[string][]byte{"a.npy": npy(t, rows)}, "the model has 2 inputs (x, y): give a .npz file"},
		"an input too few":  {x, map[string][]byte{"a.npz": npz(t, map[string]Tensor{"z": rows})}, `no array for the input "x"`},
		"no zip":            {x, map[string][]byte{"a.npz": []byte("x")}, "it is no .npz file"},
		"no array":          {x, map[string][]byte{"a.npy": []byte("x")}, "it is no .npy file"},
		"cut short":         {x, map[string][]byte{"a.npy": npy(t, rows)[:150]}, "cut short"},
		"Fortran's order":   {x, map[string][]byte{"a.npy": bytesOf("False", "True ")}, "Fortran's order"},
		"a pickle":          {x, map[string][]byte{"a.npy": bytesOf("<f4", "|O ")}, `NumPy's type "|O " is not read`},
		"larger than it is": {x, map[string][]byte{"a.npy": bytesOf("(3,2,)", "(999999999,2,)")}, "more than 1073741824 bytes: divide the array"},
		"no picture":        {[]tensor.Spec{spec("x", 1, 3, 8, 8)}, map[string][]byte{"a.png": []byte("x")}, "not a PNG, JPEG or GIF picture"},
		"labels of others":  {x, map[string][]byte{"a.npy": npy(t, rows), LabelsFile: []byte("1\n2\n")}, "has 2 labels for 3 rows"},
		"labels in words":   {x, map[string][]byte{"a.npy": npy(t, rows), LabelsFile: []byte("1\ncat\n3")}, "line 2: \"cat\" is no number of a class"},
	} {
		_, err := ReadData(lay(t, test.files), test.inputs)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestDivide(t *testing.T) {
	d := &Data{Labels: []int{0, 1, 2, 3, 4}, Samples: make([]Sample, 5), Files: 1}
	calibrate, held, err := d.Divide()
	if _, _, one := (&Data{Samples: make([]Sample, 1)}).Divide(); !errors.Is(one, ErrNoData) {
		t.Errorf("one sample: got %v, want ErrNoData", one)
	}
	if err != nil || len(calibrate) != 3 || len(held.Samples) != 2 || !slices.Equal(held.Labels, []int{1, 3}) {
		t.Errorf("got %d and %+v, %v", len(calibrate), held, err)
	}
}

func FuzzReadNPY(f *testing.F) {
	f.Add(npy(f, fp32(tensor.Shape{3, 2}, 1, 2, 3, 4, 5, 6)))
	f.Add([]byte(npyMagic + "\x02\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := readNPY(bytes.NewReader(content))
		if err != nil {
			return
		}
		if n, err := a.Shape.Bytes(a.Type); err != nil || n != len(a.Data) {
			t.Fatalf("%d bytes in the shape %s of %s", len(a.Data), a.Shape, a.Type)
		}
		again, err := readNPY(bytes.NewReader(npy(t, a)))
		if err != nil || !slices.Equal(again.Shape, a.Shape) || !bytes.Equal(again.Data, a.Data) {
			t.Fatalf("written and read again: %v, %v", again.Shape, err)
		}
	})
}

// A small file may claim rows without end, of nothing or well compressed.
func TestManyRowsAreRefused(t *testing.T) {
	spec := tensor.Spec{Name: "x", Type: tensor.Uint8, Shape: tensor.Shape{-1, -1}}
	arrays := []Tensor{{Type: tensor.Uint8, Shape: tensor.Shape{maxSamples + 1, 0}}}
	if got, err := split(arrays, []tensor.Spec{spec}); err == nil {
		t.Errorf("got %d samples", len(got))
	}
}
