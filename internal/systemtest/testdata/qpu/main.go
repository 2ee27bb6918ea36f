package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// node is the processor's device node, state the file that stands for what it
// is cut into; both are set when the program is built.
var (
	node  = "/dev/qpu0"
	state = "/run/qpu.json"
)

// partition is a half of the processor.
type partition struct {
	ID          string   `json:"id"`
	Profile     string   `json:"profile"`
	Start       int      `json:"start"`
	Slices      int      `json:"slices"`
	DeviceNodes []string `json:"deviceNodes"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: qpu probe|load|share")
		os.Exit(1)
	}
	switch os.Args[1] {
	case "probe":
		probe()
	case "load":
		fmt.Println(`{"schema":"oscine.dev/driver/v1","devices":{"qpu.example":{"Busy":0.25,"Celsius":0.015}}}`)
	case "share":
		share()
	default:
		fmt.Fprintf(os.Stderr, "qpu: there is no verb %q\n", os.Args[1])
		os.Exit(1)
	}
}

// probe reads the map as a driver may, and says which of its devices are ours.
func probe() {
	var m struct {
		Schema string `json:"schema"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&m); err != nil || m.Schema != "oscine.dev/hardware/v1" {
		fmt.Fprintf(os.Stderr, "qpu: schema %q is not understood: %v\n", m.Schema, err)
		os.Exit(1)
	}
	self, err := os.Executable()
	if err != nil {
		os.Exit(1)
	}
	report := map[string]any{
		"schema": "oscine.dev/driver/v1", "verbs": []string{"load", "share"},
		"devices": []any{map[string]any{
			"kind": "quantum", "bus": "virtual", "address": "qpu.example", "vendor": "Example", "model": "Five",
			"driverVersion": "1.0", "deviceNodes": []string{node}, "files": []any{map[string]string{"host": self, "container": "/opt/qpu/qpu"}},
			"attributes": map[string]any{"qubits": 5, "topology": "line"},
			"profiles":   []any{map[string]any{"name": "half", "slices": 2, "starts": []int{0, 2}}}, "partitions": partitions(),
		}},
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}

func partitions() []partition {
	all := []partition{}
	text, err := os.ReadFile(state)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return []partition{}
	}
	return all
}

// share makes or removes a half; a processor that is whole needs nothing done.
func share() {
	var request struct {
		Action, Profile string
		Start           int
	}
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil {
		fmt.Fprintln(os.Stderr, "qpu:", err)
		os.Exit(1)
	}
	half := partition{fmt.Sprintf("half%d", request.Start), request.Profile, request.Start, 2, []string{node}}
	all := slices.DeleteFunc(partitions(), func(p partition) bool { return p.ID == half.ID })
	answer := map[string]any{"schema": "oscine.dev/driver/v1"}
	if request.Action == "partition" {
		all, answer["partition"] = append(all, half), half
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(state, text, 0o600)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "qpu:", err)
		os.Exit(1)
	}
}
