package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/rows"
)

// TestMain turns the test's program into a server under measurement, as the
// benchmark does with its own.
func TestMain(m *testing.M) {
	runGuest()
	if len(os.Args) > 1 && strings.Contains(" echo raw front ", " "+os.Args[1]+" ") {
		if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The benchmark measures all of its own ways in a short run.
func TestRun(t *testing.T) {
	if _, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr); err != nil {
		t.Skip(err)
	}
	t.Chdir("../../..")
	file := filepath.Join(t.TempDir(), "cost.json")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-no-peers", "-rounds", "1", "-turn", "1ms", "-o", file}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var f figures
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{echoFigure, rawFigure(largeName), hopFigure(smallName), unixFigure(digitsName), jsonFigure(smallName), grpcFigure(smallName), crowdFigure(largeName), coldFigure(smallName), memoryFigure} {
		if f[name] <= 0 {
			t.Errorf("%s: got %v", name, f[name])
		}
	}
	if f[rawFigure(largeName)] <= f[rawFigure(smallName)] {
		t.Errorf("the large model costs %.1f µs, the small one %.1f", f[rawFigure(largeName)], f[rawFigure(smallName)])
	}
	if !strings.Contains(out.String(), "queue and worker") {
		t.Errorf("got %s", out.String())
	}
}

// A guest counts the same ways, and each costs instructions.
func TestInstructions(t *testing.T) {
	guesttest.Need(t)
	if _, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr); err != nil {
		t.Skip(err)
	}
	t.Chdir("../../..")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-instructions", "-rounds", "1"}, &out, io.Discard); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, line := range []string{`(?m)^bare net/http echo +[1-9]\d*\.\d +1\.00`, `(?m)^  gRPC +[1-9]\d*\.\d +[1-9]`} {
		if !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("lacks %s:\n%s", line, out.String())
		}
	}
}

func TestModelsAreJoined(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mlp.onnx")
	if err := os.WriteFile(file, mlp(8, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rows.IndependentFile(file); err != nil {
		t.Errorf("requests of the made model are not joined: %v", err)
	}
}

func TestRefusesBadOptions(t *testing.T) {
	if err := run(t.Context(), []string{"-rounds", "0"}, io.Discard, io.Discard); err == nil {
		t.Error("no rounds at all were accepted")
	}
}

func TestSubject(t *testing.T) {
	want := subject{engine: "pytorch", library: "/packs/a b/lib.so", file: "net.ts", options: map[string]string{"inputs": "x:FP32[-1,3] y:INT64[1]"}}
	word := want.String()
	if strings.ContainsAny(word, " \n") {
		t.Errorf("is not one word: %q", word)
	}
	got, err := parseSubject(word)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseSubject("%zz"); err == nil {
		t.Error("a broken word was accepted")
	}
}

// The table has a row for each engine that was measured, and names the others.
func TestEnginesTable(t *testing.T) {
	m := engineModels()[0].name()
	b := &bench{figures: figures{rawFigure(m): 200, hopFigure(m): 210, unixFigure(m): 250, aloneFigure(m): 10_000, coldFigure(m): 12_500}, absent: []string{"tensorflow: no network"}}
	var out bytes.Buffer
	b.printEngines(&out)
	b.printPeers(&out)
	for _, line := range []string{`(?m)^onnxruntime, basic-pitch.onnx +200 +210 +1.05 +250 +1.25$`, `(?m)^onnxruntime +10 +12 +1.25 +1.30$`, `not measured: tensorflow: no network`} {
		if !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("lacks %s:\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), "litert") {
		t.Errorf("a row of what was not measured:\n%s", out.String())
	}
}
