package bpf

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Load loads the programs and maps into the kernel.
func Load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	// Finding one's way by the kernel's types takes megabytes, and never again.
	defer debug.FreeOSMemory()
	if callsKernel(spec) {
		if err := resolve(spec); err != nil {
			return nil, err
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, readable(err)
	}
	return collection, nil
}

// readable takes off what the verifier prints after its reason, of which
// cilium/ebpf 0.22 knows the last line only, so that the error tells the reason.
func readable(err error) error {
	var refused *ebpf.VerifierError
	if !errors.As(err, &refused) {
		return err
	}
	figures := []string{"verification time ", "stack depth ", "insns processed ", "processed "}
	log, whole := refused.Log, refused.Error()
	for len(log) > 0 && slices.ContainsFunc(figures, func(figure string) bool { return strings.HasPrefix(log[len(log)-1], figure) }) {
		log = log[:len(log)-1]
	}
	refused.Log = log
	program, _, _ := strings.Cut(err.Error(), whole)
	return fmt.Errorf("%s%w", program, refused)
}

// callsKernel tells whether a program calls functions of the kernel by name.
func callsKernel(spec *ebpf.CollectionSpec) bool {
	for _, program := range spec.Programs {
		for i := range program.Instructions {
			if program.Instructions[i].IsKfuncCall() {
				return true
			}
		}
	}
	return false
}

// resolve names the kernel's functions by number where it has several of a
// name, with suffixes such as ___v2: cilium/ebpf 0.22 takes some of these for
// the same.
func resolve(spec *ebpf.CollectionSpec) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	for _, program := range spec.Programs {
		for i := range program.Instructions {
			ins := &program.Instructions[i]
			name := ins.Reference()
			if !ins.IsKfuncCall() || name == "" {
				continue
			}
			var one *btf.Func
			if err := kernel.TypeByName(name, &one); !errors.Is(err, btf.ErrMultipleMatches) {
				continue // the library finds it, or says that there is none
			}
			id, err := exact(kernel, name)
			if err != nil {
				return err
			}
			symbol := ins.Symbol()
			*ins = asm.Instruction{OpCode: ins.OpCode, Src: ins.Src, Constant: int64(id)}
			if symbol != "" {
				*ins = ins.WithSymbol(symbol)
			}
		}
	}
	return nil
}

// exact returns the number of the function that has this whole name.
func exact(kernel *btf.Spec, name string) (btf.TypeID, error) {
	all, err := kernel.AnyTypesByName(name)
	if err != nil {
		return 0, err
	}
	for _, t := range all {
		if f, ok := t.(*btf.Func); ok && f.Name == name {
			return kernel.TypeID(f)
		}
	}
	return 0, fmt.Errorf("kernel function %s: %w", name, btf.ErrNotFound)
}
