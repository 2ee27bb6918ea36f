package tensor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

func TestParseJSON(t *testing.T) {
	for _, test := range []struct {
		kind DataType
		text string
		n    int
		want string // as AppendJSON writes it, or part of the error
	}{
		{FP32, "[1, -2.5,3e2]", 3, "[1,-2.5,300]"},
		{FP32, " [[1,2],[3,4]] ", 4, "[1,2,3,4]"},
		{FP32, "[]", 0, "[]"},
		{FP32, "[[],[]]", 0, "[]"},
		{FP32, "[0.1]", 1, "[0.1]"},
		{FP64, "[0.1,1e300]", 2, "[0.1,1e+300]"},
		{Int8, "[-128,127]", 2, "[-128,127]"},
		{Uint64, "[18446744073709551615]", 1, "[18446744073709551615]"},
		{Int64, "[-9223372036854775808]", 1, "[-9223372036854775808]"},
		{Bool, "[true,false,1,0]", 4, "[true,false,true,false]"},
		{Uint16, "[65536]", 1, "not a whole number of the range of UINT16 at byte 1"},
		{Uint8, "[-1]", 1, "range of UINT8"},
		{Int32, "[1.0]", 1, "not a whole number of the range of INT32"},
		{FP32, "[1,2]", 3, "got 2 elements, the shape needs 3"},
		{FP32, "[1,2]", 1, "more than the 1 elements"},
		{FP32, "[1", 1, "cut off"},
		{FP32, "[1,]", 2, "not a number at byte 3"},
		{FP32, "[1 2]", 2, "unexpected '2'"},
		{FP32, "[01]", 1, "not a number"},
		{FP32, "[.5]", 1, "not a number"},
		{FP32, "[1.]", 1, "not a number"},
		{FP32, "[1e999]", 1, "not an FP32 number"},
		{FP32, "[NaN, -0, Infinity, -Infinity, Inf, -Inf]", 6, "[NaN,-0,Infinity,-Infinity,Infinity,-Infinity]"},
		{FP64, "[NaN,-0,Infinity,-Infinity,Inf,-Inf]", 6, "[NaN,-0,Infinity,-Infinity,Infinity,-Infinity]"},
		{FP32, "[nan]", 1, "not a number"},
		{FP32, "[Infinite]", 1, "unexpected 'i'"},
		{FP64, "[-]", 1, "not an FP64 number"},
		{Int8, "[NaN]", 1, "not a whole number"},
		{FP32, "[null]", 1, "not a number"},
		{FP32, "[0x10]", 1, "unexpected 'x'"},
		{FP32, "[1]]", 1, "something follows"},
		{FP32, "3", 1, "unexpected '3'"},
		{FP32, strings.Repeat("[", 100), 1, "nested too deeply"},
		{FP16, "[1]", 1, "send them as binary"},
	} {
		dst := make([]byte, test.n*test.kind.Size())
		err := ParseJSON(dst, test.kind, []byte(test.text))
		got := ""
		if err != nil {
			if got = err.Error(); !errors.Is(err, ErrData) {
				t.Errorf("%s %s: %v is no ErrData", test.kind, test.text, err)
			}
		} else {
			out, err := AppendJSON(nil, test.kind, dst)
			if err != nil {
				t.Errorf("%s %s: write again: %v", test.kind, test.text, err)
			}
			got = string(out)
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s %s: got %s, want %s", test.kind, test.text, got, test.want)
		}
	}
}

// Every way to write a float32 must round as strconv does, above all those in
// the middle between two.
func TestParseJSONRounding(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		a := math.Float32frombits(random.Uint32())
		if a != a || math.IsInf(float64(a), 0) {
			continue
		}
		middle := (float64(a) + float64(math.Nextafter32(a, 0))) / 2
		for _, text := range []string{
			strconv.FormatFloat(float64(a), 'g', -1, 32),
			strconv.FormatFloat(float64(a), 'f', -1, 64),
			strconv.FormatFloat(middle, 'g', -1, 64),
			strconv.FormatFloat(random.Float64(), 'f', random.IntN(20), 64),
			strconv.FormatFloat(middle, 'f', 17, 64),
		} {
			checkFloat(t, text)
		}
	}
}

func checkFloat(t *testing.T, text string) {
	t.Helper()
	want, err := strconv.ParseFloat(text, 32)
	if err != nil {
		return
	}
	var dst [4]byte
	if err := ParseJSON(dst[:], FP32, []byte("["+text+"]")); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got := binary.LittleEndian.Uint32(dst[:]); got != math.Float32bits(float32(want)) {
		t.Fatalf("%s: got %x, want %x", text, got, math.Float32bits(float32(want)))
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte("[1,2.5,-3e-7]"), uint8(FP32))
	f.Add([]byte("[[true],[false]]"), uint8(Bool))
	f.Add([]byte("[0.10000000149011612]"), uint8(FP32))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		d := DataType(kind % uint8(numDataTypes))
		var flat []json.Number
		decoded := json.Unmarshal(data, &flat) == nil && string(data) != "null"
		n := len(flat)
		err := ParseJSON(make([]byte, n*d.Size()), d, data)
		if decoded && d == FP64 && err != nil {
			for _, number := range flat {
				if _, ferr := strconv.ParseFloat(number.String(), 64); ferr != nil {
					return
				}
			}
			if !strings.Contains(string(data), `"`) && !strings.Contains(string(data), "null") {
				t.Errorf("%q is an array of numbers: %v", data, err)
			}
		}
		if err == nil && d != Bool && !json.Valid(data) {
			t.Errorf("%q is not JSON but was accepted", data)
		}
		if d == FP32 && err == nil && decoded {
			for _, number := range flat {
				checkFloat(t, number.String())
			}
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, 784)
	for i := range values {
		values[i] = random.Float32()
	}
	text, err := json.Marshal(values)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 4*len(values))
	b.Run("oscine", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if err := ParseJSON(dst, FP32, text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if err := json.Unmarshal(text, &values); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Numbers are written as strconv writes them: the shortest that is read as the same.
func TestAppendFloat32(t *testing.T) {
	check := func(bits uint32) {
		f := math.Float32frombits(bits)
		if notFinite(float64(f)) {
			return
		}
		if got, want := string(appendFloat32(nil, f)), strconv.FormatFloat(float64(f), 'g', -1, 32); got != want {
			t.Fatalf("%#x: got %s, want %s", bits, got, want)
		}
	}
	for _, f := range []float32{0, float32(math.Copysign(0, -1)), 1, 10, 999999, 1e6, 999999.94, 0.1, 0.5, 0.3, 1e-4, 9.9999e-5, 123.25, 16777216, 2097152.2, 33554.434} {
		for _, step := range []uint32{0, 1, 2} { // and their neighbours
			bits := math.Float32bits(f)
			check(bits + step)
			check(bits - step)
			check((bits + step) | 1<<31)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1_000_000 {
		check(random.Uint32())
		check(math.Float32bits(random.Float32()))
		check(math.Float32bits(float32(random.IntN(1e6)) / 100))
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	values, raw := make([]float32, 784), []byte(nil)
	for i := range values {
		values[i] = random.Float32()
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(values[i]))
	}
	text := make([]byte, 0, 16<<10)
	b.Run("oscine", func(b *testing.B) {
		for b.Loop() {
			if _, err := AppendJSON(text, FP32, raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("strconv", func(b *testing.B) {
		for b.Loop() {
			text = text[:0]
			for _, f := range values {
				text = strconv.AppendFloat(append(text, ','), float64(f), 'g', -1, 32)
			}
		}
	})
}
