package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// node is the processor's device node, set when the program is built.
var node = "/dev/qpu0"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: qpu probe|load")
		os.Exit(1)
	}
	switch os.Args[1] {
	case "probe":
		probe()
	case "load":
		fmt.Println(`{"schema":"oscine.dev/driver/v1","devices":{"qpu.example":{"Busy":0.25,"Celsius":0.015}}}`)
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
		"schema": "oscine.dev/driver/v1", "verbs": []string{"load"},
		"devices": []any{map[string]any{
			"kind": "quantum", "bus": "virtual", "address": "qpu.example", "vendor": "Example", "model": "Five",
			"driverVersion": "1.0", "deviceNodes": []string{node}, "files": []any{map[string]string{"host": self, "container": "/opt/qpu/qpu"}},
			"attributes": map[string]any{"qubits": 5, "topology": "line"},
		}},
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}
