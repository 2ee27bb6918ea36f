package container

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

// recordKey is the extension of containerd's container that holds a record.
const recordKey = "oscine.dev/record"

// record is what Oscine keeps with a container.
type record struct {
	Image      string            `json:"image,omitempty"`
	Digest     string            `json:"digest,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	SpecHash   string            `json:"specHash"`
	CgroupPath string            `json:"cgroupPath"`
	LogPath    string            `json:"logPath"`
	UIDBase    uint32            `json:"uidBase,omitempty"` // host id of the container's 0; 0 without user namespace
	UID        uint32            `json:"uid"`               // the program's, as the container sees it
	GID        uint32            `json:"gid"`
	StartedAt  time.Time         `json:"startedAt,omitzero"` // zero until the program ran
	OOMKills   int               `json:"oomKills,omitempty"` // in the cgroup before this run
	Stopped    bool              `json:"stopped,omitempty"`  // Stop was called for this run
	Exit       *exit             `json:"exit,omitempty"`
}

// exit is how a container ended.
type exit struct {
	Code      int       `json:"code"` // -1 if nobody saw it
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
}

// extension packs the record for the store.
func (r record) extension() (map[string]typeurl.Any, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return map[string]typeurl.Any{recordKey: &anypb.Any{TypeUrl: recordKey, Value: data}}, nil
}

func recordOf(c containers.Container) (record, error) {
	var r record
	ext := c.Extensions[recordKey]
	if ext == nil {
		return r, fmt.Errorf("container %s: it has no record", c.ID)
	}
	if err := json.Unmarshal(ext.GetValue(), &r); err != nil {
		return r, fmt.Errorf("container %s: its record: %w", c.ID, err)
	}
	return r, nil
}

// hash tells one Spec from another.
func (s Spec) hash() (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}
