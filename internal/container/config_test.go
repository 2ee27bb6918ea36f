package container

import (
	"encoding/json"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzImageConfig makes a container from what an image's configuration might say:
// it may name a program, but no right.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"config":{"User":"root","Env":["A=1","A","=","PATH=/x"],"Entrypoint":["/run"],"Cmd":["x"],"WorkingDir":"../..","Volumes":{"/etc":{}},"Labels":{"a":"b"}}}`))
	f.Add([]byte(`{"config":{"Cmd":[""],"WorkingDir":"/\u0000"},"rootfs":{"diff_ids":["x"]}}`))
	f.Add([]byte(`{"created":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var image ocispec.Image
		if json.Unmarshal(data, &image) != nil {
			return
		}
		p := plan{spec: Spec{ID: "w", Hostname: "w", NetNS: "/run/netns/w"}, image: image.Config, uidBase: 1 << 20, etc: "/etc-of-w"}
		s, err := p.ociSpec()
		if err != nil {
			return
		}
		if c := s.Process.Capabilities; !s.Process.NoNewPrivileges || !s.Root.Readonly || len(c.Bounding)+len(c.Ambient) != 0 || s.Process.User.UID != 0 || len(s.Linux.UIDMappings) != 1 {
			t.Errorf("the image loosens its container: %+v", s.Process)
		}
		if len(s.Process.Args) == 0 || s.Process.Cwd == "" {
			t.Errorf("nothing runs: %+v", s.Process)
		}
	})
}
