package pack

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/printable"
)

// HeadBytes is how much of a model file Choose looks at.
const HeadBytes = 8 << 10

// Format is a kind of model file that a pack's engines read.
type Format struct {
	Name     string   `json:"name"`     // for people, for example onnx
	Suffixes []string `json:"suffixes"` // of the files' names, for example .onnx
	// Magic are bytes of which a file of the format has some: any one of them.
	// Without magic the name alone tells.
	Magic []Magic `json:"magic,omitempty"`
}

// Magic are bytes at a place of a file.
type Magic struct {
	Offset int    `json:"offset,omitempty"`
	Hex    string `json:"hex"`
}

// strongMagic is how many bytes of magic are enough to know a file by them,
// whatever its name says.
const strongMagic = 4

var suffixRE = pattern.New(`^\.[a-z0-9][a-z0-9_+-]{0,20}$`)

func (f *Format) check() error {
	if !nameRE.MatchString(f.Name) {
		return errors.New("name: must be lower-case letters, digits, '.' or '-'")
	}
	if len(f.Suffixes) == 0 || len(f.Suffixes) > maxList || len(f.Magic) > maxList {
		return fmt.Errorf("suffixes, magic: at least one suffix, at most %d of each", maxList)
	}
	for _, s := range f.Suffixes {
		if !suffixRE.MatchString(s) {
			return fmt.Errorf("suffix %q: must be a dot and lower-case letters or digits", s)
		}
	}
	for _, m := range f.Magic {
		raw, err := hex.DecodeString(m.Hex)
		if err != nil || len(raw) == 0 || m.Offset < 0 || m.Offset > HeadBytes-len(raw) {
			return fmt.Errorf("magic %q at %d: must be bytes in hex within the first %d of a file", m.Hex, m.Offset, HeadBytes)
		}
	}
	return nil
}

// match returns how many bytes of magic a file's head has, 0 for a format
// without magic; ok is false where it has magic and the file has not.
func (f *Format) match(head []byte) (n int, ok bool) {
	if len(f.Magic) == 0 {
		return 0, true
	}
	for _, m := range f.Magic {
		raw, err := hex.DecodeString(m.Hex) // checked with the manifest
		if err == nil && m.Offset >= 0 && m.Offset <= len(head) && bytes.HasPrefix(head[m.Offset:], raw) {
			n = max(n, len(raw))
		}
	}
	return n, n > 0
}

// Question is what Choose wants to know of a model.
type Question struct {
	User      string // stays on older versions that are kept for it, as Kind/name; "": on none
	Engine    string // that runs it; "" for any
	Suffix    string // of the file's name, for example .onnx; "" if unknown
	Head      []byte // the first HeadBytes of the file
	Protocols []int  // between daemon and worker, that the daemon speaks
	// Files are those at the top of the model's folder, where it is no single file:
	// one of them is to be of a format by its name. Head is then not looked at, and
	// Suffix may be empty.
	Files []FolderFile
}

// FolderFile is a file at the top of a model's folder.
type FolderFile struct {
	Name string
	Head []byte // its first HeadBytes
}

// each returns a question for each file that a model may be known by.
func (q *Question) each() []Question {
	if len(q.Files) == 0 {
		return []Question{*q}
	}
	var all []Question
	for _, f := range q.Files {
		one := *q
		one.Files, one.Suffix, one.Head = nil, strings.ToLower(path.Ext(f.Name)), f.Head
		if q.Suffix == "" || q.Suffix == one.Suffix {
			all = append(all, one)
		}
	}
	return all
}

// ErrNoEngine means that no installed pack can run a model.
var ErrNoEngine = errors.New("no installed pack can run the model")

// Candidates returns the installed packs for a model, never none: those that hold
// the engine named, or that read the file by its name and content. The first is
// the one that the rules prefer: it knows the file by most bytes, then it reads
// the fewest formats, then it is the first by name. It returns an error wrapping
// ErrNotInstalled or ErrNoEngine that says what can be done.
func (s *Store) Candidates(q Question) ([]Info, error) {
	all, err := s.All()
	if err != nil {
		return nil, err
	}
	return candidates(keptFor(q.User, all), q)
}

// candidate is a pack that may run a model.
type candidate struct {
	pack  *Info
	magic int
}

func candidates(packs []Info, q Question) ([]Info, error) {
	if q.Engine != "" {
		packs = slices.DeleteFunc(slices.Clone(packs), func(p Info) bool { return !slices.Contains(p.Engines, q.Engine) && p.Name != q.Engine })
		if len(packs) == 0 {
			return nil, fmt.Errorf("%w: the engine %s: %s", ErrNotInstalled, q.Engine, howToGet(q.Engine))
		}
	}
	fits, named := readers(packs, q)
	if len(fits) == 0 {
		return nil, unread(packs, q, named)
	}
	slices.SortStableFunc(fits, byRules)
	var list []Info
	for _, c := range fits {
		if slices.ContainsFunc(c.pack.Protocols, func(v int) bool { return slices.Contains(q.Protocols, v) }) &&
			!slices.ContainsFunc(list, func(p Info) bool { return p.Name == c.pack.Name }) {
			list = append(list, *c.pack)
		}
	}
	if p := fits[0].pack; len(list) == 0 {
		return nil, fmt.Errorf("%w: the workers of the pack %s %s speak version %s of the protocol, this node %s: install the pack of this release",
			ErrNoEngine, p.Name, p.Version, versions(p.Protocols), versions(q.Protocols))
	}
	return list, nil
}

// byRules orders packs that read a model: by how much of it they know, then those
// that read less else.
func byRules(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.magic, a.magic), cmp.Compare(len(a.pack.Formats), len(b.pack.Formats)), strings.Compare(a.pack.Name, b.pack.Name))
}

// readers are the packs with engines that read a model. Of a folder only files
// count whose names are of the pack's formats.
func readers(packs []Info, q Question) (fits []candidate, named bool) {
	for _, one := range q.each() {
		known := slices.ContainsFunc(packs, func(p Info) bool { return p.named(one.Suffix) })
		named = named || known
		for i := range packs {
			p := &packs[i]
			if len(p.Engines) == 0 || len(q.Files) > 0 && !p.named(one.Suffix) {
				continue
			}
			if magic, ok := p.reads(one, known); ok {
				fits = append(fits, candidate{p, magic})
			}
		}
	}
	return fits, named
}

func versions(list []int) string {
	if len(list) == 0 {
		return "1"
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ", ")
}

// named reports whether a format of the pack has files of that name.
func (m *Manifest) named(suffix string) bool {
	return slices.ContainsFunc(m.Formats, func(f Format) bool { return slices.Contains(f.Suffixes, suffix) })
}

// reads reports whether a pack reads the file, and by how many bytes it knows.
// A name that no pack knows says nothing: then content must tell plainly.
func (m *Manifest) reads(q Question, named bool) (magic int, ok bool) {
	for _, f := range m.Formats {
		n, matches := f.match(q.Head)
		switch {
		case !matches:
			continue
		case q.Engine != "":
		case q.Suffix == "":
			matches = n > 0
		case named:
			matches = slices.Contains(f.Suffixes, q.Suffix)
		default:
			matches = n >= strongMagic
		}
		if matches {
			magic, ok = max(magic, n), true
		}
	}
	return magic, ok
}

// unread says why no pack runs a model, and what helps.
func unread(packs []Info, q Question, named bool) error {
	var read []string
	for _, p := range packs {
		for _, f := range p.Formats {
			read = append(read, fmt.Sprintf("%s (%s)", strings.Join(f.Suffixes, ", "), p.Name))
		}
	}
	what := "the format of the file"
	switch {
	case len(q.Files) > 0:
		what = "a file at the top of the model's folder (" + names(q.Files) + ")"
	case q.Suffix != "":
		what = q.Suffix + " files"
	}
	switch {
	case bytes.HasPrefix(q.Head, []byte(lfsPointer)):
		return fmt.Errorf("%w: the file is a Git LFS pointer, not the model: fetch it with git lfs pull", ErrNoEngine)
	case pickled(q.Head):
		return fmt.Errorf("%w: the file is a Python pickle, which can run any program when it is read: export the model, for example to ONNX", ErrNoEngine)
	case q.Engine != "" || named:
		return fmt.Errorf("%w: the file does not begin as those that installed packs read: %s: is it whole, and of that format?", ErrNoEngine, strings.Join(read, "; "))
	case len(read) == 0:
		return fmt.Errorf("%w: there is none for %s: %s", ErrNoEngine, what, howToRead(q))
	}
	return fmt.Errorf("%w: none reads %s, those installed read %s: %s", ErrNoEngine, what, strings.Join(read, "; "), howToRead(q))
}

// pickled reports whether a file begins as Python's pickles do since version 2 of
// their protocol.
func pickled(head []byte) bool {
	return len(head) > 1 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5
}

// lfsPointer is how a file begins that stands for one in Git's large file storage
// (git-lfs/docs/spec.md).
const lfsPointer = "version https://git-lfs.github.com/spec/"

// names lists the first of a folder's files.
func names(files []FolderFile) string {
	var list []string
	for _, f := range files[:min(len(files), 5)] {
		list = append(list, printable.Text(f.Name))
	}
	if len(files) > 5 {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}

// howToGet tells how to come by the pack with an engine.
func howToGet(engine string) string {
	for _, r := range recipes() {
		if r.name == engine || slices.Contains(r.manifest.Engines, engine) {
			return fmt.Sprintf("make it with oscine pack build %s and install it with oscine pack install FILE", r.name)
		}
	}
	return "install its pack with oscine pack install FILE"
}

// howToRead tells how to come by a pack that reads a file.
func howToRead(q Question) string {
	var known []Info
	for _, r := range recipes() {
		known = append(known, Info{Manifest: r.manifest})
	}
	if fits, _ := readers(known, q); len(fits) > 0 {
		best := slices.MinFunc(fits, byRules).pack.Name
		return "the pack " + best + " does: " + howToGet(best)
	}
	return "install a pack that does with oscine pack install FILE, or export the model to a format that is read"
}
