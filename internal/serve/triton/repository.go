package triton

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/prototext"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/object"
	pb "oscine.dev/oscine/internal/serve/triton/modelconfigpb"
)

// ConfigFile is the name of a model's configuration in its folder.
const ConfigFile = "config.pbtxt"

// Bounds of a repository.
const (
	maxConfig = 1 << 20 // bytes
	maxModels = 1000
)

// Version is one version of a model, with the Model that serves it.
type Version struct {
	Model  object.Model // without its source
	Source string       // path of the model's file or folder; "" for an ensemble
	// Without are the fields of the configuration that have no effect here, and those
	// that were ignored.
	Without []string
}

// Is reports whether a folder is a model of a repository, or a repository.
func Is(dir string) bool {
	if isModel(dir) {
		return true
	}
	folders, err := folders(dir)
	return err == nil && slices.ContainsFunc(folders, func(name string) bool { return isModel(filepath.Join(dir, name)) })
}

// Read reads a repository, or the one model whose folder is given, with the
// versions that each one's policy serves. Fields that are not supported are errors,
// unless they are among the ignored.
func Read(dir string, ignored []string) ([]Version, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errdefs.ErrNotFound.WithMessage(dir + ": there is no such folder")
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, invalid("%s is no folder: a model repository has a folder for each model (oscine serve takes a single file)", dir)
	}
	models := []string{dir}
	if !isModel(dir) {
		names, err := folders(dir)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 || len(names) > maxModels {
			return nil, invalid("%s has %d folders: a model repository has 1 to %d, one for each model", dir, len(names), maxModels)
		}
		models = models[:0]
		for _, name := range names {
			models = append(models, filepath.Join(dir, name))
		}
	}
	var all []Version
	errs := checkIgnored(ignored)
	for _, model := range models {
		versions, err := read(model, ignored)
		all, errs = append(all, versions...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, distinct(all)
}

// distinct refuses two models whose names differ only in what names of objects
// cannot have.
func distinct(all []Version) error {
	seen := map[string]string{}
	for i := range all {
		m := &all[i].Model
		served := m.ServedName() + " version " + m.Spec.Version
		if other := seen[m.Metadata.Name]; other != "" {
			return invalid("%s and %s would both be model %s: rename the folder of one of them", other, served, m.Metadata.Name)
		}
		seen[m.Metadata.Name] = served
	}
	return nil
}

// isModel reports whether a folder has a configuration, or a version with a file
// that Triton needs none for.
func isModel(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, ConfigFile)); err == nil {
		return true
	}
	return slices.ContainsFunc(versions(dir), func(v int64) bool {
		return file(versionDir(dir, v), usualFiles) != ""
	})
}

// folders are the names of the folders in one that are not hidden.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// versions are the versions in a model's folder, ascending. As Triton does, it
// passes over folders whose names are no numbers or begin with 0.
func versions(dir string) (list []int64) {
	names, _ := folders(dir)
	for _, name := range names {
		if n, err := strconv.ParseInt(name, 10, 64); err == nil && n > 0 && name[0] != '0' && name[0] != '+' {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

func versionDir(dir string, version int64) string {
	return filepath.Join(dir, strconv.FormatInt(version, 10))
}

// file is the path of the first of the names that is in a folder, "" for none.
func file(dir string, names []string) string {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// read reads one model.
func read(dir string, ignored []string) ([]Version, error) {
	whole, err := filepath.Abs(dir) // of "." too
	if err != nil {
		return nil, err
	}
	name := filepath.Base(whole)
	config, err := readConfig(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	r := &reading{name: name, config: config, ignored: ignored}
	m := r.model()
	served := r.served(dir)
	if len(r.errs) > 0 {
		return nil, invalid("%v", errors.Join(r.errs...))
	}
	object := strings.Trim(notInName.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if object == "" {
		return nil, fmt.Errorf("model %s: the name of the folder has no letter or digit to name a Model by: rename the folder", name)
	}
	var list []Version
	for _, v := range served {
		one := Version{Model: *m, Source: v.source, Without: r.without}
		one.Model.Spec.Version, one.Model.Spec.Format = strconv.FormatInt(v.version, 10), v.format
		one.Model.Metadata.Name = object
		if r.several() {
			one.Model.Metadata.Name = fmt.Sprintf("%s-v%d", object, v.version)
		}
		if one.Model.Metadata.Name != name {
			one.Model.Spec.ServedAs = name
		}
		list = append(list, one)
	}
	return list, nil
}

// invalid is the error of a repository or configuration that is wrong.
func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// readConfig reads a configuration; a missing one is empty.
func readConfig(path string) (*pb.ModelConfig, error) {
	config := &pb.ModelConfig{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return config, parse(text, config)
}

// parse reads the text of a configuration.
func parse(text []byte, config *pb.ModelConfig) error {
	if err := prototext.Unmarshal(text, config); err != nil {
		// The library's errors begin with one of two kinds of spaces, so that nobody
		// compares them.
		why := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "proto:"), "\u00a0", " ")
		return invalid("%s: %s", ConfigFile, strings.TrimSpace(why))
	}
	return nil
}

// found is a version whose files are there.
type found struct {
	version        int64
	source, format string
}

// served are the versions that the policy serves, ascending.
func (r *reading) served(dir string) (list []found) {
	there, c := versions(dir), r.config
	if r.ensemble() && len(there) == 0 {
		there = []int64{1}
	}
	if len(there) == 0 {
		r.bad("has no version: its files belong in a folder whose name is a number, such as %s", filepath.Join(dir, "1"))
		return nil
	}
	want := there
	switch p := c.GetVersionPolicy(); {
	case p.GetAll() != nil:
	case p.GetSpecific() != nil:
		want = slices.Sorted(slices.Values(p.GetSpecific().Versions))
		want = slices.Compact(want)
		if len(want) == 0 {
			r.bad("version_policy.specific names no version")
		}
	default:
		want = there[len(there)-min(len(there), int(max(p.GetLatest().GetNumVersions(), 1))):]
	}
	for _, v := range want {
		if !slices.Contains(there, v) {
			r.bad("version_policy asks for version %d, and there is no folder %s", v, versionDir(dir, v))
			continue
		}
		if r.ensemble() {
			list = append(list, found{version: v})
			continue
		}
		names := r.files()
		source := file(versionDir(dir, v), names)
		if source == "" {
			if len(names) > 0 {
				r.bad("version %d has no model: %s holds none of %s", v, versionDir(dir, v), strings.Join(names, ", "))
			}
			continue
		}
		r.compare(source)
		list = append(list, found{v, source, format(source)})
	}
	return list
}

// several reports whether the policy may serve more than one version, each by a
// Model of its own.
func (r *reading) several() bool {
	p := r.config.GetVersionPolicy()
	return p.GetAll() != nil || p.GetSpecific() != nil || p.GetLatest().GetNumVersions() > 1
}

// usualFiles are the names that Triton's backends give to models whose formats
// Oscine's packs read.
var usualFiles = []string{"model.onnx", "model.savedmodel", "model.pt", "model.pt2", "model.xml", "model.tflite", "model.graphdef"}

// backends are those whose models Oscine's packs read, with the usual files of
// each, by the platforms and backends that configurations name.
var backends = map[string]string{
	"": "", "onnxruntime": "model.onnx", "onnxruntime_onnx": "model.onnx",
	"tensorflow": "model.savedmodel", "tensorflow_savedmodel": "model.savedmodel", "tensorflow_graphdef": "model.graphdef",
	"pytorch": "model.pt", "pytorch_libtorch": "model.pt", "torch_aoti": "model.pt2",
	"openvino": "model.xml", "tflite": "model.tflite", "armnn_tflite": "model.tflite",
}

// files are the names that the model's file may have, the first that is there.
// None: nothing reads it.
func (r *reading) files() []string {
	c := r.config
	if name := c.GetDefaultModelFilename(); name != "" {
		if !filepath.IsLocal(name) {
			r.bad("default_model_filename %q leads out of the version's folder", name)
			return nil
		}
		return []string{name}
	}
	usual, known := backends[cmp.Or(c.GetPlatform(), c.GetBackend())]
	switch {
	case !known:
		return nil
	case usual == "":
		return usualFiles
	}
	return []string{usual}
}

// format is the ending by which packs know a model's file, "" for one that its
// content tells.
func format(source string) string {
	if info, err := os.Stat(source); err != nil || info.IsDir() {
		return ""
	}
	switch ending := strings.ToLower(filepath.Ext(source)); ending {
	case ".onnx", ".pt", ".pth", ".ts", ".jit", ".pt2", ".pte", ".xml", ".tflite", ".pb":
		return ending
	case ".graphdef":
		return ".pb"
	}
	return ""
}
