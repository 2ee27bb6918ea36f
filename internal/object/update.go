package object

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// UpdatePolicy says what a node does about new releases by itself.
type UpdatePolicy string

// The policies.
const (
	UpdateManual   UpdatePolicy = "manual"   // nothing
	UpdateDownload UpdatePolicy = "download" // writes a new release into the idle slot, and waits to be told
	UpdateAuto     UpdatePolicy = "auto"     // restarts into it too
)

// MachineUpdate says where a node's releases come from and when it installs them.
type MachineUpdate struct {
	Source     string         `json:"source,omitempty"`    // of releases: a URL, oci://HOST/REPOSITORY:TAG in a registry, a folder on the node, or stick:LABEL/FOLDER on a USB stick
	Root       string         `json:"root,omitempty"`      // the trusted TUF root metadata, JSON; default: the image's
	Policy     UpdatePolicy   `json:"policy,omitempty"`    // manual (default), download or auto
	CheckEvery Duration       `json:"checkEvery,omitzero"` // how often to look for a release; default 6h
	Windows    []UpdateWindow `json:"windows,omitempty"`   // when the node may restart for an update; default: always
	Gate       UpdateGate     `json:"gate,omitzero"`
	Bandwidth  Quantity       `json:"bandwidth,omitzero"` // most bytes per second for downloads from the source; default: no limit
	Peers      []string       `json:"peers,omitempty"`    // other nodes, HOST or HOST:PORT, that are asked for files before the source, in this order
	Share      UpdateShare    `json:"share,omitzero"`     // what other nodes may fetch from this one; default: nothing
}

// UpdateShare is what a node keeps of the releases that it fetches, for other nodes of its
// cluster that name it as a peer.
type UpdateShare struct {
	Size      Quantity `json:"size,omitzero"`      // most bytes of the data partition for files of releases, at least 64Mi
	Bandwidth Quantity `json:"bandwidth,omitzero"` // most bytes per second that all peers get together; default: no limit
}

// UpdateWindow is a time of the week, in UTC.
type UpdateWindow struct {
	Days     []string `json:"days,omitempty"` // Mon, Tue, Wed, Thu, Fri, Sat or Sun; default: every day
	Start    string   `json:"start"`          // hour and minute, such as 02:30
	Duration Duration `json:"duration"`       // from 5m to 24h
}

// UpdateGate is what a new version must pass before it is kept, in addition to the node's
// own checks.
type UpdateGate struct {
	Deadline Duration `json:"deadline,omitzero"` // default 10m, from 10s to 1h
	HTTP     []string `json:"http,omitempty"`    // URLs that must answer with a status from 200 to 399
}

// SetDefaults fills what is absent.
func (u *MachineUpdate) SetDefaults() {
	setDefault(&u.Policy, UpdateManual)
	setDefault(&u.CheckEvery, Duration(6*time.Hour))
	setDefault(&u.Gate.Deadline, Duration(10*time.Minute))
}

func (u *MachineUpdate) check(c *Checker, at string) {
	c.OneOf(at+".policy", string(u.Policy), string(UpdateManual), string(UpdateDownload), string(UpdateAuto))
	c.Duration(at+".checkEvery", u.CheckEvery, time.Minute, 30*24*time.Hour)
	c.Duration(at+".gate.deadline", u.Gate.Deadline, 10*time.Second, time.Hour)
	if u.Source == "" && u.Policy != "" && u.Policy != UpdateManual {
		c.Bad(at+".source", "is needed with policy %s", u.Policy)
	}
	if u.Source != "" {
		if err := CheckReleaseSource(u.Source); err != nil {
			c.Bad(at+".source", "%v", err)
		}
	}
	if _, ok := u.Bandwidth.Value(); !ok {
		c.Bad(at+".bandwidth", "must be bytes a second, such as 2Mi, got %s", u.Bandwidth)
	}
	u.checkPeers(c, at)
	for i, text := range u.Gate.HTTP {
		if target, err := url.Parse(text); err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Host == "" {
			c.Bad(fmt.Sprintf("%s.gate.http[%d]", at, i), "must be a URL such as http://127.0.0.1:8080/health, got %q", text)
		}
	}
	for i := range u.Windows {
		if err := u.Windows[i].Check(); err != nil {
			c.Bad(fmt.Sprintf("%s.windows[%d]", at, i), "%v", err)
		}
	}
}

// Bounds of what nodes give to each other.
const (
	maxPeers = 16
	minShare = 64 << 20 // bytes: a release, with its deltas
)

func (u *MachineUpdate) checkPeers(c *Checker, at string) {
	if len(u.Peers) > maxPeers {
		c.Bad(at+".peers", "must be at most %d, got %d", maxPeers, len(u.Peers))
	}
	seen := map[string]bool{}
	for i, text := range u.Peers {
		peer, err := ParsePeer(text)
		if err != nil {
			c.Bad(fmt.Sprintf("%s.peers[%d]", at, i), "%v", err)
		} else if seen[peer] {
			c.Bad(fmt.Sprintf("%s.peers[%d]", at, i), "names %s a second time", peer)
		}
		seen[peer] = true
	}
	size, ok := u.Share.Size.Value()
	switch {
	case !ok || !u.Share.Size.IsZero() && size < minShare:
		c.Bad(at+".share.size", "must be bytes, at least 64Mi, got %s", u.Share.Size)
	case u.Share.Size.IsZero() && !u.Share.Bandwidth.IsZero():
		c.Bad(at+".share.size", "is needed with a bandwidth: how much of the data partition files for peers may take, such as 1Gi")
	}
	if _, ok := u.Share.Bandwidth.Value(); !ok {
		c.Bad(at+".share.bandwidth", "must be bytes a second, such as 2Mi, got %s", u.Share.Bandwidth)
	}
}

// ParsePeer returns the HOST:PORT of another node's API. The port may be left out.
func ParsePeer(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), strconv.Itoa(apiPort)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 || !registryRE.MatchString(text) {
		return "", fmt.Errorf("must be the host and port of another node, such as 192.168.1.10 or edge1.example.com:7443, got %q", text)
	}
	return net.JoinHostPort(host, port), nil
}

// CheckReleaseSource reports what is wrong with the form of a source of releases.
func CheckReleaseSource(source string) error {
	scheme, rest, _ := strings.Cut(source, ":")
	u, err := url.Parse(source)
	ok := false
	switch scheme {
	case "http", "https":
		ok = err == nil && u.Host != ""
	case "oci":
		ok = isReference(source)
	case "stick":
		label, folder, _ := strings.Cut(rest, "/")
		ok = label != "" && (folder == "" || filepath.IsLocal(folder))
	case "file":
		ok = err == nil && u.Host == "" && filepath.IsAbs(u.Path)
	default:
		ok = filepath.IsAbs(source)
	}
	if !ok {
		return fmt.Errorf("must be the URL of a web server, oci://HOST/REPOSITORY:TAG, stick:LABEL/FOLDER or a folder of the node such as /data/releases, got %q", source)
	}
	return nil
}

const day = 24 * time.Hour

// weekdays in the order of time.Weekday.
func weekdays() []string { return []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"} }

// Check reports what is wrong with a window.
func (w *UpdateWindow) Check() error {
	if _, err := time.Parse("15:04", w.Start); err != nil {
		return fmt.Errorf("start must be an hour and a minute such as 02:30, got %q", w.Start)
	}
	if w.Duration.Std() < 5*time.Minute || w.Duration.Std() > day {
		return fmt.Errorf("duration must be from 5m to 24h, got %v", w.Duration)
	}
	for _, d := range w.Days {
		if !slices.Contains(weekdays(), d) {
			return fmt.Errorf("days must be of %s, got %q", strings.Join(weekdays(), ", "), d)
		}
	}
	return nil
}

// Contains reports whether a window is open at a time. Nothing is remembered: a
// clock that jumps is asked again.
func (w *UpdateWindow) Contains(at time.Time) bool {
	at = at.UTC()
	start, err := time.Parse("15:04", w.Start)
	if err != nil {
		return false
	}
	midnight := at.Truncate(day)
	for _, opened := range []time.Time{midnight.Add(-day), midnight} {
		from := opened.Add(time.Duration(start.Hour())*time.Hour + time.Duration(start.Minute())*time.Minute)
		if (len(w.Days) == 0 || slices.Contains(w.Days, weekdays()[from.Weekday()])) && !at.Before(from) && at.Before(from.Add(w.Duration.Std())) {
			return true
		}
	}
	return false
}

// String is what ParseUpdateWindow reads.
func (w UpdateWindow) String() string {
	return strings.TrimSpace(strings.Join(w.Days, ",") + " " + w.Start + " " + w.Duration.String())
}

// ParseUpdateWindow reads a window as people write it: "Sat,Sun 02:30 4h", or
// "02:30 4h" for every day.
func ParseUpdateWindow(text string) (UpdateWindow, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 || len(fields) > 3 {
		return UpdateWindow{}, fmt.Errorf("%q is not a window such as \"Sat,Sun 02:30 4h\"", text)
	}
	w := UpdateWindow{Start: fields[len(fields)-2]}
	if len(fields) == 3 {
		w.Days = strings.Split(fields[0], ",")
	}
	d, err := time.ParseDuration(fields[len(fields)-1])
	if err != nil {
		return UpdateWindow{}, fmt.Errorf("%q is not a window such as \"Sat,Sun 02:30 4h\": %w", text, err)
	}
	w.Duration = Duration(d)
	if err := w.Check(); err != nil {
		return UpdateWindow{}, fmt.Errorf("%q is not a window: %w", text, err)
	}
	return w, nil
}
