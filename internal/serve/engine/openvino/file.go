package openvino

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/serve/worker"
)

// entry returns what OpenVINO reads of the model at path: a file whose name has
// the ending of its format, by which OpenVINO knows it, or a SavedModel's folder.
// remove removes what was made for that; it may be nil.
func entry(path string) (file string, remove func(), err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, err
	}
	if info.IsDir() {
		file, err = inFolder(path)
		return file, nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, errors.New("the model is neither a file nor a folder")
	}
	suffix, err := suffixOf(path)
	if err != nil {
		return "", nil, err
	}
	if filepath.Ext(path) == suffix {
		return path, nil, nil
	}
	dir, err := os.MkdirTemp("", "model-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	target, err := filepath.Abs(path)
	if err == nil {
		file = filepath.Join(dir, "model"+suffix)
		err = os.Symlink(target, file)
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return file, remove, nil
}

// inFolder returns what OpenVINO reads of a folder: itself where it is a
// SavedModel, else the one model at its top.
func inFolder(path string) (string, error) {
	if _, err := os.Stat(filepath.Join(path, "saved_model.pb")); err == nil {
		return path, nil
	}
	file, err := worker.Entry(path, ".xml", ".onnx", ".tflite", ".pb")
	if err != nil || filepath.Ext(file) != ".xml" {
		return file, err
	}
	weights := strings.TrimSuffix(file, ".xml") + ".bin"
	if _, err := os.Stat(weights); err != nil {
		return "", noWeights(filepath.Base(file), filepath.Base(weights))
	}
	return file, nil
}

func noWeights(graph, weights string) error {
	return fmt.Errorf("%s is the graph of an OpenVINO model, whose weights %s are not with it: put both in one folder and serve the graph or the folder", graph, weights)
}

// suffixOf tells a single file's format by its content.
func suffixOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("not a model that OpenVINO can load: %w", err)
	}
	head = head[:n]
	switch {
	case n >= 8 && string(head[4:8]) == "TFL3":
		return ".tflite", nil
	case bytes.HasPrefix(bytes.TrimLeft(head, "\ufeff \t\r\n"), []byte("<")):
		return "", noWeights("the file", "a .bin file")
	case bytes.HasPrefix(head, []byte{0x08, 0x01}) && filepath.Ext(path) != ".onnx":
		return "", errors.New("the file is the graph of a SavedModel, whose weights are not with it: serve its folder")
	case head[0] == 0x0a:
		return ".pb", nil
	case head[0] == 0x08:
		return ".onnx", nil
	}
	return "", errors.New("not a model that OpenVINO can load: it is neither IR, ONNX, TensorFlow Lite nor a graph of TensorFlow")
}
