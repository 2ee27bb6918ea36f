package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// ErrNoMirror is returned when nothing on the machine names a Debian mirror.
var ErrNoMirror = errors.New("no Debian mirror is known: " +
	"set OSCINE_DEBIAN_MIRROR to the base URL of one (the part before /dists), or install debootstrap")

// Mirror returns the base URL, without a final slash, of the Debian mirror to
// use: $OSCINE_DEBIAN_MIRROR, else the one of the machine's apt, else
// debootstrap's default, else [ErrNoMirror].
func Mirror(ctx context.Context) (string, error) {
	if m := os.Getenv("OSCINE_DEBIAN_MIRROR"); m != "" {
		u, err := url.Parse(m)
		if err != nil || u.Scheme == "" {
			return "", fmt.Errorf("OSCINE_DEBIAN_MIRROR=%q is not a URL: give the part before /dists", m)
		}
		return strings.TrimRight(m, "/"), nil
	}
	// With information of the release, apt names nothing before its first update.
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(REPO_URI)|$(SITE)|$(RELEASE)|$(COMPONENT)").Output()
	if err == nil {
		if m := aptMirror(out); m != "" {
			return m, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	for _, file := range []string{"/usr/sbin/debootstrap", "/usr/share/debootstrap/functions"} {
		script, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if m := scriptMirror(script); m != "" {
			return m, nil
		}
	}
	return "", ErrNoMirror
}

// debianSuites are the releases by which an archive is known to be Debian's
// own main archive rather than that of a derivative.
var debianSuites = pattern.New(
	`^(bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|stable|oldstable)(-updates|-backports)?$`)

// aptMirror picks the main archive out of apt-get indextargets.
func aptMirror(targets []byte) string {
	scan := bufio.NewScanner(bytes.NewReader(targets))
	for scan.Scan() {
		f := strings.Split(scan.Text(), "|")
		if len(f) != 4 || !debianSuites.MatchString(f[2]) || f[3] != "main" {
			continue
		}
		base := strings.TrimRight(f[1], "/")
		if u, err := url.Parse(base); err != nil || u.Scheme == "" {
			continue
		}
		return base
	}
	return ""
}

var defaultMirror = pattern.New(`(?m)^\s*(?:DEF_MIRROR|DEF_HTTPS_MIRROR)="?(https?://[^\s"$]+)"?`)

// scriptMirror reads debootstrap's own default out of its script.
func scriptMirror(script []byte) string {
	if m := defaultMirror.Regexp().FindSubmatch(script); m != nil {
		return strings.TrimRight(string(m[1]), "/")
	}
	return ""
}
