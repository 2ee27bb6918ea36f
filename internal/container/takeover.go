package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	v2 "github.com/containerd/containerd/v2/core/runtime/v2"
	"github.com/containerd/ttrpc"
)

// bundle is the folder in which containerd keeps a task of ours.
func (c Config) bundle(id string) string { return filepath.Join(c.State, "tasks", namespace, id) }

// beforeLoading prepares what a killed process left for containerd to load. It
// takes note of containers that ended meanwhile, since containerd deletes their
// tasks, exit code and all; and it ends shims that were started but never heard
// of: these wait for a log reader forever, and would look alive.
func (e *engine) beforeLoading(ctx context.Context, config Config) error {
	for killed := true; killed; { // a shim being born may yet fork
		killed = false
		for id, pid := range shims(config) {
			if _, err := os.Stat(filepath.Join(config.bundle(id), "bootstrap.json")); err != nil {
				killed = killAndWait(pid) || killed
			}
		}
	}
	hidden, err := filepath.Glob(filepath.Join(config.bundle(""), ".*"))
	if err != nil {
		return err
	}
	for _, dir := range hidden {
		os.RemoveAll(dir) // best effort: a bundle whose deletion was cut short
	}
	all, err := e.containers.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		rec, err := recordOf(c)
		if err != nil || rec.Exit != nil {
			continue
		}
		if rec.Exit = exitOf(ctx, config.bundle(c.ID), c.ID); rec.Exit == nil {
			continue
		}
		rec.judge()
		if err := e.keep(ctx, c.ID, rec); err != nil {
			return err
		}
	}
	return nil
}

// afterLoading ends the shims, and the OCI runtime's containers, that
// containerd did not take over: a start that was cut short left them.
func (e *engine) afterLoading(ctx context.Context, config Config) error {
	tasks, err := e.tasks.Tasks(ctx, false)
	if err != nil {
		return err
	}
	var loaded []string
	for _, task := range tasks {
		loaded = append(loaded, task.ID())
	}
	for id, pid := range shims(config) {
		if !slices.Contains(loaded, id) {
			killAndWait(pid)
		}
	}
	root := filepath.Join(config.State, "runtime", namespace)
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		// crun keeps a cache of its own there.
		if id := entry.Name(); idRE.MatchString(id) && !slices.Contains(loaded, id) {
			// An error means that there was not even a container yet.
			_ = exec.CommandContext(ctx, config.RuntimePath, "--root", root, "delete", "--force", id).Run()
			os.RemoveAll(filepath.Join(root, id))
		}
	}
	return nil
}

// exitOf asks a shim how its container ended; nil if it did not, or the shim is gone.
func exitOf(ctx context.Context, bundle, id string) *exit {
	data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err != nil {
		return nil
	}
	var shim struct {
		Version int    `json:"version"`
		Address string `json:"address"`
	}
	if err := json.Unmarshal(data, &shim); err != nil {
		return nil
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(shim.Address, "unix://"))
	if err != nil {
		return nil
	}
	connection := ttrpc.NewClient(conn)
	defer connection.Close()
	client, err := v2.NewTaskClient(connection, shim.Version)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	state, err := client.State(ctx, &taskapi.StateRequest{ID: id})
	if err != nil || state.Status != tasktypes.Status_STOPPED {
		return nil
	}
	return &exit{Code: int(state.ExitStatus), At: state.ExitedAt.AsTime()}
}

// shims finds the shims of this State by container ID, those that are about to
// start one included.
func shims(config Config) map[string]int {
	found := map[string]int{}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	mine := filepath.Join(config.State, "ttrpc")
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join("/proc", process.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(bytes.TrimSuffix(data, []byte{0})), "\x00")
		if filepath.Base(args[0]) != filepath.Base(config.ShimPath) || argument(args, "-address") != mine {
			continue
		}
		found[argument(args, "-id")] = pid
	}
	return found
}

func argument(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// killAndWait kills a process and says whether it could.
func killAndWait(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil || process.Signal(syscall.SIGKILL) != nil {
		return false
	}
	for range 200 { // it is not a child of this process, so its end must be polled
		if err := process.Signal(syscall.Signal(0)); err != nil {
			return true
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}
