package image

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/licence"
)

// ContentsFile is where the root tells what it holds and why.
const ContentsFile = "usr/share/oscine/contents.json"

// File is one file of the root and its justification.
type File struct {
	Path string      `json:"path"` // without a leading slash
	Mode fs.FileMode `json:"mode"`
	Size int64       `json:"size,omitempty"` // bytes
	Link string      `json:"link,omitempty"` // target of a symbolic link
	Why  string      `json:"why"`
	From string      `json:"from,omitempty"` // the component it came from, see [Component]

	data []byte
	file string // read from here when data is nil
}

// Component is something that the root was made of: a Debian package, a Go
// module or Oscine itself.
type Component struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Kind     string `json:"kind"`               // deb, go or oscine
	Arch     string `json:"arch,omitempty"`     // of a deb
	SHA256   string `json:"sha256,omitempty"`   // of a deb
	Download string `json:"download,omitempty"` // of a deb: its path in a Debian mirror
	Licence  string `json:"licence,omitempty"`  // SPDX licence expression; empty where it is not known
}

// ID names a component in [File.From].
func (c Component) ID() string { return c.Kind + ":" + c.Name }

// Contents is the list of everything on a root.
type Contents struct {
	Version    string      `json:"version"` // of Oscine
	Arch       string      `json:"arch"`
	Kernel     string      `json:"kernel"`
	Files      []File      `json:"files"`
	Components []Component `json:"components"`

	// LicenceTexts holds what each LicenseRef in a component's licence stands for.
	LicenceTexts map[string]licence.Text `json:"licenceTexts,omitempty"`
}

// content collects a root.
type content struct {
	files map[string]File
	parts map[string]Component
	texts map[string]licence.Text
}

func newContent() *content {
	return &content{files: map[string]File{}, parts: map[string]Component{}, texts: map[string]licence.Text{}}
}

func (c *content) dir(name, why string, mode fs.FileMode) {
	c.put(File{Path: name, Mode: fs.ModeDir | mode, Why: why, From: "oscine:oscine"})
}

func (c *content) link(name, target, why, from string) {
	c.put(File{Path: name, Mode: fs.ModeSymlink | 0o777, Link: target, Why: why, From: from})
}

func (c *content) text(name, why, from string, data []byte) {
	c.put(File{Path: name, Mode: 0o644, Size: int64(len(data)), Why: why, From: from, data: data})
}

func (c *content) copy(name, file, why, from string, mode fs.FileMode) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	c.put(File{Path: name, Mode: mode, Size: info.Size(), Why: why, From: from, file: file})
	return nil
}

// put adds a file and the folders above it.
func (c *content) put(f File) {
	c.files[f.Path] = f
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		if _, ok := c.files[dir]; !ok {
			c.files[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755, Why: "holds " + path.Base(f.Path), From: f.From}
		}
	}
}

func (c *content) component(p Component) string {
	c.parts[p.ID()] = p
	return p.ID()
}

// list returns the files, each after its folder, in an order that depends on
// nothing but their names.
func (c *content) list() []File {
	out := make([]File, 0, len(c.files))
	for _, f := range c.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

func (c *content) components() []Component {
	out := make([]Component, 0, len(c.parts))
	for _, p := range c.parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Component) int { return cmp.Compare(a.ID(), b.ID()) })
	return out
}

func (f File) read() ([]byte, error) {
	if f.data != nil || f.file == "" {
		return f.data, nil
	}
	return os.ReadFile(f.file)
}

// skeleton is what every Linux root needs before any program.
func (c *content) skeleton(version, arch string) {
	for _, d := range []struct{ name, why string }{
		{"proc", "mount point of proc"}, {"sys", "mount point of sysfs"}, {"dev", "mount point of devtmpfs"},
		{"run", "mount point of run-time state"}, {"var", "mount point of the data partition"},
		{"boot", "mount point of the ESP while it is needed"},
	} {
		c.dir(d.name, d.why, 0o755)
	}
	c.dir("tmp", "mount point of temporary files", 0o755)
	c.dir("root", "home of user root, empty", 0o700)
	const merged = "folders of the traditional names lead to /usr"
	for _, name := range []string{"bin", "sbin", "lib"} {
		c.link(name, "usr/"+name, merged, "oscine:oscine")
	}
	if arch == "amd64" {
		c.link("lib64", "usr/lib64", merged, "oscine:oscine")
	}
	for _, t := range []struct{ name, why, text string }{
		{"etc/passwd", "names of users in listings", "root:x:0:0:root:/root:/nonexistent\nnobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n"},
		{"etc/group", "names of groups in listings", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
		{"etc/nsswitch.conf", "where C libraries look up names", "passwd: files\ngroup: files\nhosts: files dns\n"},
		{"etc/hosts", "names of this machine", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"},
		{"etc/os-release", "what this system is (os-release(5))", osRelease(version)},
	} {
		c.text(t.name, t.why, "oscine:oscine", []byte(t.text))
	}
	c.link("etc/resolv.conf", "../run/oscine/resolv.conf", "name servers, as DHCP or the Machine file tell", "oscine:oscine")
	c.link("etc/mtab", "../proc/self/mounts", "mounts, for programs that look here", "oscine:oscine")
}

func osRelease(version string) string {
	return fmt.Sprintf("ID=oscine\nNAME=Oscine\nPRETTY_NAME=\"Oscine %s\"\nVERSION_ID=%s\nIMAGE_ID=oscine\nIMAGE_VERSION=%s\nHOME_URL=https://oscine.dev\n",
		version, strings.TrimPrefix(version, "v"), version)
}
