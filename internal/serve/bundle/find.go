package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/serve/rows"
)

// Find lists the files of the model at a path: of a folder all but hidden ones,
// of a file itself and those that it says it needs. Where the model is that file
// alone, the list is empty. Links to files are followed, links to folders are
// refused.
func Find(model string) ([]File, error) {
	info, err := os.Stat(model)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return folder(model)
	}
	needed, err := companions(model, info.Size())
	if err != nil || len(needed) == 0 {
		return nil, err
	}
	files := []File{{filepath.Base(model), model, info.Size()}}
	for _, name := range needed {
		f, err := companion(model, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// companions are the names of the files that a model's file needs beside it.
func companions(model string, size int64) ([]string, error) {
	switch strings.ToLower(filepath.Ext(model)) {
	case ".onnx":
		f, err := os.Open(model)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		needed, err := rows.External(f, size)
		if err != nil {
			return nil, nil // no ONNX model: the node says what is wrong with it
		}
		return needed, nil
	case ".xml": // of OpenVINO, its weights are beside it
		bin := strings.TrimSuffix(filepath.Base(model), filepath.Ext(model)) + ".bin"
		if _, err := os.Stat(filepath.Join(filepath.Dir(model), bin)); err == nil {
			return []string{bin}, nil
		}
	}
	return nil, nil
}

// companion finds a file that a model says it needs. The model may come from
// anywhere: nothing outside its folder is sent.
func companion(model, name string) (File, error) {
	name = path.Clean(name)
	if err := CheckName(name); err != nil {
		return File{}, fmt.Errorf("%s keeps weights in a file that cannot be sent along: %w", model, err)
	}
	file := filepath.Join(filepath.Dir(model), filepath.FromSlash(name))
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return File{}, fmt.Errorf("%s keeps weights in %q, which is not beside it: put it at %s", model, name, file)
	case err != nil:
		return File{}, err
	case !info.Mode().IsRegular():
		return File{}, fmt.Errorf("%s keeps weights in %q, which is not a file", model, name)
	}
	return File{name, file, info.Size()}, nil
}

// folder lists the files below a folder but hidden ones.
func folder(dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder: a model holds nothing else", file)
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if err := CheckName(name); err != nil {
			return err
		}
		if len(files) == MaxFiles {
			return fmt.Errorf("%s has more than %d files", dir, MaxFiles)
		}
		files = append(files, File{name, file, info.Size()})
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s holds no files", dir)
	}
	return files, err
}
