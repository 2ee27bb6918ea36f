package nvml

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/hardware"
)

// MPS is the Multi-Process Service of one GPU: a control daemon with a folder
// of its own, in which its pipes, logs and shared memory lie. It is spoken to
// as NVIDIA documents: commands on the standard input of
// nvidia-cuda-mps-control, which passes them on through the control pipe.
//
// Source: NVIDIA, Multi-Process Service, "Tools and interface reference".
type MPS struct {
	Control   string // the program; "" means nvidia-cuda-mps-control from PATH
	Directory string // of this GPU
}

// mpsTimeout bounds every command, mpsAnswer its answer.
const (
	mpsTimeout = 5 * time.Second
	mpsAnswer  = 64 << 10
)

// ErrOneUser says that a driver's MPS serves one user at a time. Oscine's
// workloads are users of their own, so the second would wait until the first
// has ended.
var ErrOneUser = errors.New("MPS of this driver serves one user at a time: update it to 555 or newer, whose nvidia-cuda-mps-control knows -multiuser-server, or use MIG partitions or time slices")

const multiUser = "-multiuser-server"

func (m MPS) program() (string, error) {
	name := m.Control
	if name == "" {
		name = "nvidia-cuda-mps-control"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("MPS: %w: install NVIDIA's MPS (Debian: nvidia-cuda-mps)", err)
	}
	return path, nil
}

// MultiUser returns nil where the driver has an MPS that can serve several
// workloads at once, else what is missing. The program does not tell its
// options, so its text is looked through for the one.
func (m MPS) MultiUser() error {
	path, err := m.program()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const most = 64 << 20
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte(multiUser[1:])) {
		return ErrOneUser
	}
	return nil
}

// Pipes is the folder that clients need as CUDA_MPS_PIPE_DIRECTORY.
func (m MPS) Pipes() string { return filepath.Join(m.Directory, "pipe") }

// Shared is the folder that clients need as /dev/shm.
func (m MPS) Shared() string { return filepath.Join(m.Directory, "shm") }

// client is what the container of a client needs.
//
// Source: NVIDIA, Multi-Process Service, "Environment variables".
func (m MPS) client(of *hardware.ShareAmount) (env []string, mounts []hardware.ShareMount) {
	const pipes = "/run/nvidia-mps"
	priority := 0 // 0 is before 1
	if of.LowPriority {
		priority = 1
	}
	env = []string{"CUDA_MPS_PIPE_DIRECTORY=" + pipes, fmt.Sprintf("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=%d", of.Percent), fmt.Sprintf("CUDA_MPS_CLIENT_PRIORITY=%d", priority)}
	if of.Memory > 0 {
		env = append(env, fmt.Sprintf("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=%dM", of.Memory>>20))
	}
	return env, []hardware.ShareMount{{Source: m.Pipes(), Target: pipes}, {Source: m.Shared(), Target: "/dev/shm"}}
}

// command runs the control program; visible is CUDA_VISIBLE_DEVICES.
func (m MPS) command(ctx context.Context, visible string, args ...string) (*exec.Cmd, error) {
	path, err := m.program()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, path, args...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "CUDA_MPS_PIPE_DIRECTORY=" + m.Pipes(), "CUDA_MPS_LOG_DIRECTORY=" + filepath.Join(m.Directory, "log")}
	if visible != "" {
		c.Env = append(c.Env, "CUDA_VISIBLE_DEVICES="+visible)
	}
	c.WaitDelay = time.Second
	return c, nil
}

// Do gives the control daemon one command and returns its answer.
func (m MPS) Do(ctx context.Context, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mpsTimeout)
	defer cancel()
	line := strings.Join(command, " ")
	c, err := m.command(ctx, "")
	if err != nil {
		return "", err
	}
	c.Stdin = strings.NewReader(line + "\n")
	out, err := c.CombinedOutput()
	answer := strings.TrimSpace(string(out[:min(len(out), mpsAnswer)]))
	if err != nil {
		return "", fmt.Errorf("MPS: %s: %w: %s", line, err, answer)
	}
	return answer, nil
}

// Running reports whether the daemon answers.
func (m MPS) Running(ctx context.Context) bool {
	_, err := m.Do(ctx, "get_server_list")
	return err == nil
}

// Start starts the daemon for the GPU with that UUID, unless it runs.
func (m MPS) Start(ctx context.Context, uuid string) error {
	if err := m.MultiUser(); err != nil {
		return err
	}
	if m.Running(ctx) {
		return nil
	}
	for _, dir := range []string{m.Pipes(), filepath.Join(m.Directory, "log"), m.Shared()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("MPS: %w", err)
		}
	}
	// Workloads are users of their own and share what the server makes there.
	if err := errors.Join(os.Chmod(m.Pipes(), 0o755), os.Chmod(m.Shared(), os.ModeSticky|0o777)); err != nil {
		return fmt.Errorf("MPS: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, mpsTimeout)
	defer cancel()
	c, err := m.command(limited, uuid, "-d", multiUser)
	if err != nil {
		return err
	}
	// The daemon goes on after the command and must hold none of its pipes.
	var log bytes.Buffer
	file, err := os.CreateTemp(m.Directory, "start-")
	if err != nil {
		return fmt.Errorf("MPS: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	c.Stdout, c.Stderr = file, file
	err = c.Run()
	if text, e := os.ReadFile(file.Name()); e == nil {
		log.Write(text[:min(len(text), 1024)])
	}
	if err != nil {
		return fmt.Errorf("MPS: start the control daemon: %w: %s", err, bytes.TrimSpace(log.Bytes()))
	}
	if !m.Running(ctx) {
		return fmt.Errorf("MPS: the control daemon started and does not answer: see %s", filepath.Join(m.Directory, "log"))
	}
	return nil
}

// Limit sets what new clients get at most, whatever their own environment says:
// percent of the processors, and bytes of the device's memory; 0 leaves one as
// it is. Clients that run keep what they have.
func (m MPS) Limit(ctx context.Context, percent int, bytes int64) error {
	servers, err := m.Do(ctx, "get_server_list")
	if err != nil {
		return err
	}
	if err := m.limit(ctx, percent, bytes, "default_", ""); err != nil {
		return err
	}
	for _, pid := range strings.Fields(servers) {
		if _, err := strconv.Atoi(pid); err != nil {
			return fmt.Errorf("MPS: get_server_list: %q is no list of processes", servers)
		}
		if err := m.limit(ctx, percent, bytes, "", pid); err != nil {
			return err
		}
	}
	return nil
}

// limit sets the limits of one server, or the default of servers to come. The
// program ends well whatever the daemon answers, so the answer is looked at: a
// percentage is repeated, an amount of memory answered by silence.
func (m MPS) limit(ctx context.Context, percent int, bytes int64, of, pid string) error {
	words := func(verb string, values ...string) []string {
		command := []string{"set_" + of + verb}
		if pid != "" {
			command = append(command, pid)
		}
		return append(command, values...)
	}
	check := func(command []string, good func(answer string) bool) error {
		answer, err := m.Do(ctx, command...)
		gone := pid != "" && answer == "Server "+pid+" not found" // it ended meanwhile
		if err == nil && !gone && !good(answer) {
			err = fmt.Errorf("MPS: %s: the control daemon answers %q", strings.Join(command, " "), answer)
		}
		return err
	}
	if percent > 0 {
		err := check(words("active_thread_percentage", strconv.Itoa(percent)), func(answer string) bool {
			got, err := strconv.ParseFloat(answer, 64)
			return err == nil && math.Abs(got-float64(percent)) < 0.5 || pid != "" && answer == ""
		})
		if err != nil {
			return err
		}
	}
	if bytes <= 0 {
		return nil
	}
	return check(words("device_pinned_mem_limit", "0", strconv.FormatInt(bytes>>20, 10)+"M"), func(answer string) bool { return answer == "" })
}

// Stop ends the daemon and its servers; without one it does nothing.
func (m MPS) Stop(ctx context.Context) error {
	if _, err := os.Stat(m.Pipes()); errors.Is(err, os.ErrNotExist) || !m.Running(ctx) {
		return nil
	}
	_, err := m.Do(ctx, "quit", "-t", "3")
	return err
}
