package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
)

// The releases that the demo goes to.
const (
	NextVersion   = "0.2.0" // a second release of the same tree
	BrokenVersion = "0.3.0" // one whose kernel refuses to drive the network card
	brokenCmdline = "module_blacklist=virtio_net"
	// hostOfGuest is this computer as the machine sees it (QEMU's user network).
	hostOfGuest = "10.0.2.2"
	// A node that has lost its network is given this long to find it again.
	brokenDeadline = 20 * time.Second
	goodDeadline   = 10 * time.Minute
)

// releaseKeys makes the keys of a publisher and an empty release folder, and
// returns the lines of a Machine manifest that trust it.
func (r *run) releaseKeys() (string, error) {
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		if _, err := keys.Generate(filepath.Join(r.dir(), "keys"), role, nil); err != nil {
			return "", err
		}
	}
	all, err := keys.Load(filepath.Join(r.dir(), "keys"), nil)
	if err != nil {
		return "", err
	}
	r.releases = repository.Open(filepath.Join(r.dir(), "releases"), all, repository.Options{})
	if _, err := r.releases.Init(repository.Setup{}); err != nil {
		return "", err
	}
	root, err := r.releases.RootMetadata()
	if err != nil {
		return "", err
	}
	return "    update: {root: '" + strings.ReplaceAll(string(root), "\n", " ") + "'}\n", nil
}

// makeReleases builds and publishes both releases.
func (r *run) makeReleases(ctx context.Context) (string, error) {
	for _, o := range []image.Options{
		{Version: NextVersion},
		{Version: BrokenVersion, Cmdline: brokenCmdline, Programs: r.builtPrograms()},
	} {
		o.Arch, o.Source, o.Log = r.Arch, r.Source, &r.log
		o.Out = filepath.Join(r.dir(), o.Version+".img")
		if _, err := image.Build(ctx, o); err != nil {
			return "", err
		}
		if err := r.publish(ctx, o.Out); err != nil {
			return "", err
		}
		if err := os.Remove(o.Out); err != nil {
			return "", err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(r.dir(), "releases"))), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // until the demo ends
	context.AfterFunc(ctx, func() { _ = server.Close() })
	r.source = "http://" + net.JoinHostPort(hostOfGuest, port)
	return NextVersion + ", and " + BrokenVersion + ", which cannot reach the network", nil
}

// builtPrograms is the folder of those that make build left, empty where they are
// not there or not for the machine: the broken release needs no others.
func (r *run) builtPrograms() string {
	dir := filepath.Join(r.Dir, "bin")
	if _, err := os.Stat(filepath.Join(dir, "oscined")); err != nil || r.Arch != runtime.GOARCH {
		return ""
	}
	return dir
}

func (r *run) publish(ctx context.Context, file string) error {
	parts, err := repository.OpenImage(file)
	if err != nil {
		return err
	}
	_, err = r.releases.Create(ctx, repository.Release{Parts: parts})
	return errors.Join(err, parts.Close())
}

// upgrade goes to the second release.
func (r *run) upgrade(ctx context.Context) (string, error) {
	took, reason, err := r.goTo(ctx, NextVersion, goodDeadline)
	if err != nil {
		return "", err
	}
	if reason != "" {
		return "", fmt.Errorf("the node went back: %s", reason)
	}
	r.report.Upgrade = UpgradeReport{To: NextVersion, Took: took}
	return fmt.Sprintf("%s runs and reads digits; it took %.1f s, %.1f CPU-seconds of QEMU", NextVersion, took.Seconds, took.CPUSeconds), nil
}

// upgradeToBroken goes to the broken release, and is back without help.
func (r *run) upgradeToBroken(ctx context.Context) (string, error) {
	took, reason, err := r.goTo(ctx, BrokenVersion, brokenDeadline)
	if err != nil {
		return "", err
	}
	if reason == "" {
		return "", fmt.Errorf("%s was kept, although it has no network", BrokenVersion)
	}
	r.report.Broken = UpgradeReport{To: BrokenVersion, Took: took, Reason: reason}
	return fmt.Sprintf("back at %s after %.1f s, %.1f CPU-seconds: %s", NextVersion, took.Seconds, took.CPUSeconds, printable.Text(reason)), nil
}

// goTo upgrades to a version, waits for the outcome, and has the model read a
// digit. reason is why the node went back, empty where it did not.
func (r *run) goTo(ctx context.Context, version string, deadline time.Duration) (took Moment, reason string, err error) {
	began := time.Now()
	before, err := r.machine.CPUTime()
	if err != nil {
		return Moment{}, "", err
	}
	if reason, err = r.Tools.Upgrade(ctx, r.node, r.source, version, deadline); err != nil {
		return Moment{}, "", err
	}
	if err := r.readOne(ctx); err != nil {
		return Moment{}, "", err
	}
	after, err := r.machine.CPUTime()
	return Moment{Seconds: seconds(time.Since(began)), CPUSeconds: seconds(after - before)}, reason, err
}

// readOne waits until the model answers.
func (r *run) readOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	web, url := r.node.HTTP()
	server := &oip.Client{HTTP: web, URL: url}
	in := r.inputs[0]
	for {
		outputs, err := server.Infer(ctx, Model, oip.Tensor{Spec: tensor.Spec{Name: modelInput.Name, Type: modelInput.Type, Shape: in.shape}, Data: in.data})
		if err == nil && len(outputs) > 0 && likeliest(outputs[0].Data) >= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the model does not answer any more: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
