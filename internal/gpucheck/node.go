package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/linux"
)

// node is a hosted oscined of this run, with all that it keeps in folders of its own.
type node struct {
	dir, runDir, address string
	command              *exec.Cmd
	log                  *os.File
}

// oscine runs the command-line tool and returns what it printed, and on its
// standard error.
func (c *check) oscine(args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(c.ctx, filepath.Join(c.bin, "oscine"), append([]string{"--config", filepath.Join(c.node.dir, "config")}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), errOut.String(), fmt.Errorf("oscine %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), errOut.String(), nil
}

// startNode starts the daemon and waits for its API.
func (c *check) startNode() (err error) {
	n := &c.node
	if n.dir, err = os.MkdirTemp("/var/tmp", "gpu-check-"); err != nil {
		return err
	}
	if n.runDir, err = os.MkdirTemp("/run", "gpuc-"); err != nil { // short: sockets lie below
		return err
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.address = free.Addr().String()
	if err := free.Close(); err != nil {
		return err
	}
	if _, _, err := c.oscine("config", "generate", "node1", "--with-key", "-o", n.dir, "--address", n.address); err != nil {
		return err
	}
	if n.log, err = os.Create(filepath.Join(n.dir, "oscined.log")); err != nil {
		return err
	}
	state := filepath.Join(n.dir, "state")
	n.command = exec.Command(filepath.Join(c.bin, "oscined"), "--hosted", "--config", filepath.Join(n.dir, "node1.yaml"), "--listen", n.address,
		"--state", state, "--run", n.runDir, "--logs", filepath.Join(state, "log"))
	n.command.Stdout, n.command.Stderr = n.log, n.log
	if err := n.command.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if _, _, err = c.oscine("info"); err == nil {
			break
		}
		if time.Now().After(deadline) || c.ctx.Err() != nil {
			return fmt.Errorf("the node does not answer: %w\n%s", err, c.said())
		}
	}
	out, _, err := c.oscine("hardware")
	if err != nil {
		return err
	}
	for _, id := range c.gpus {
		if !strings.Contains(out, id) {
			return fmt.Errorf("%s is not on the node's map:\n%s", id, out)
		}
	}
	return nil
}

// said is the end of what the daemon wrote.
func (c *check) said() string {
	text, err := os.ReadFile(filepath.Join(c.node.dir, "oscined.log"))
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	return string(text[max(0, len(text)-most):])
}

// install installs a pack.
func (c *check) install(name string) error {
	_, _, err := c.oscine("pack", "install", c.packFile(name))
	return err
}

// stop ends the daemon with all that it started and removes its folders.
func (c *check) stop() error {
	n := &c.node
	var errs []error
	if n.command != nil && n.command.Process != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		c.ctx = ctx
		names, _, _ := c.oscine("get", "-o", "name")
		for name := range strings.FieldsSeq(names) {
			_, _, err := c.oscine("delete", name)
			errs = append(errs, err)
		}
		kill := time.AfterFunc(30*time.Second, func() { _ = n.command.Process.Kill() })
		errs = append(errs, n.command.Process.Signal(syscall.SIGTERM), n.command.Wait())
		kill.Stop()
	}
	for _, dir := range []string{n.runDir, n.dir} {
		if dir == "" {
			continue
		}
		if err := linux.UnmountBelow(dir); err != nil { // what is mounted there is not ours to remove
			errs = append(errs, fmt.Errorf("%s is left: %w", dir, err))
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
