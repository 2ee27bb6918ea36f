package pytorch

import (
	"archive/zip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// unpack unpacks a package that inspect has accepted into a new folder, for the
// library to load from. The libraries in it ask for an executable stack, which they
// do not need (what AOTInductor assembles lacks the note that says so), and which the
// C library refuses to a running program: the request is removed.
func unpack(file string) (string, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return "", err
	}
	defer z.Close()
	dir, err := os.MkdirTemp("", "model-")
	if err != nil {
		return "", err
	}
	if err := unpackAll(&z.Reader, dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

func unpackAll(z *zip.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range z.File {
		_, name, _ := strings.Cut(f.Name, "/")
		if f.FileInfo().IsDir() || path.Ext(name) == ".cpp" { // source, for people
			continue
		}
		if err := unpackFile(root, f, name); err != nil {
			return fmt.Errorf("unpack %s of the package: %w", name, err)
		}
	}
	return nil
}

func unpackFile(root *os.Root, f *zip.File, name string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	// The reader checks size and CRC and reads no byte more than it says.
	_, err = io.Copy(out, in)
	if err == nil && path.Ext(name) == ".so" {
		err = plainStack(out)
	}
	return errors.Join(err, out.Close())
}

// plainStack makes the stack that a library asks for one that is not executable (ELF
// of 64 bits, Linux's PT_GNU_STACK).
func plainStack(f *os.File) error {
	header := make([]byte, 64)
	if _, err := f.ReadAt(header, 0); err != nil {
		return fmt.Errorf("not a library: %w", err)
	}
	at, size, n := int64(binary.LittleEndian.Uint64(header[32:])), int64(binary.LittleEndian.Uint16(header[54:])), binary.LittleEndian.Uint16(header[56:])
	for range n {
		program := make([]byte, 8) // type and flags
		if _, err := f.ReadAt(program, at); err != nil {
			return fmt.Errorf("not a library: %w", err)
		}
		if flags := binary.LittleEndian.Uint32(program[4:]); elf.ProgType(binary.LittleEndian.Uint32(program)) == elf.PT_GNU_STACK {
			binary.LittleEndian.PutUint32(program[4:], flags&^uint32(elf.PF_X))
			if _, err := f.WriteAt(program, at); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}
