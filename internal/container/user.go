package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
)

// nobody is the user of an image that names none, or root: the "nonroot" of
// distroless images.
const nobody = 65532

// maxPasswd bounds an image's /etc/passwd and /etc/group.
const maxPasswd = 1 << 20

// user is who a process runs as, in the container's ids.
type user struct {
	UID, GID uint32
	Groups   []uint32
}

// findUser resolves asked, or else what the image says. Root becomes nobody
// unless it is allowed; asking for it then is an error. Names are looked up in
// the image's own files, which rootfs mounts.
func findUser(ctx context.Context, asked, ofImage string, allowRoot bool, rootfs []mount.Mount) (user, error) {
	text := asked
	if text == "" {
		text = ofImage
	}
	if text == "" && allowRoot {
		return user{}, nil
	}
	if text == "" {
		return user{UID: nobody, GID: nobody}, nil
	}
	u, err := parseUser(text, nil, nil)
	if errors.Is(err, errName) {
		err = mount.WithReadonlyTempMount(ctx, rootfs, func(root string) error {
			u, err = lookupUser(root, text)
			return err
		})
	}
	switch {
	case err != nil:
		return user{}, fmt.Errorf("user %q: %w", text, err)
	case u.UID != 0 || allowRoot:
		return u, nil
	case asked != "":
		return user{}, fmt.Errorf("user %q is root: allow it (allowRoot), or choose another", text)
	}
	return user{UID: nobody, GID: nobody}, nil
}

// errName says that a user or group has to be looked up.
var errName = errors.New("a name, not a number")

// errRange says that a number is not among a container's ids.
var errRange = fmt.Errorf("a container has the ids 0 to %d", uidsEach-1)

// parseUser reads "user", "user:group" in names or numbers. passwd and group
// are the files, nil if unknown: then any name is errName.
func parseUser(text string, passwd, group [][]string) (user, error) {
	name, groupName, hasGroup := strings.Cut(text, ":")
	var u user
	id, err := parseID(name)
	switch {
	case errors.Is(err, errRange):
		return u, err
	case err == nil && passwd == nil && !hasGroup:
		return u, errName // its group may be in the file
	case err == nil:
		u.UID, u.GID = id, id
	case passwd == nil:
		return u, errName
	}
	found := err == nil
	for _, f := range passwd { // name:password:uid:gid:…
		if len(f) < 4 || f[0] != name && (err != nil || f[2] != name) {
			continue
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		if err1 != nil || err2 != nil {
			continue
		}
		u.UID, u.GID, found = uid, gid, true
		u.Groups = groupsOf(f[0], group)
		break
	}
	if !found {
		return u, errors.New("the image's /etc/passwd has no such name; give a number")
	}
	if !hasGroup {
		return u, nil
	}
	gid, err := parseGroup(groupName, group)
	u.GID = gid
	return u, err
}

func parseGroup(name string, group [][]string) (uint32, error) {
	if gid, err := parseID(name); err == nil {
		return gid, nil
	}
	if group == nil {
		return 0, errName
	}
	for _, f := range group { // name:password:gid:members
		if len(f) >= 3 && f[0] == name {
			return parseID(f[2])
		}
	}
	return 0, fmt.Errorf("the image's /etc/group has no %q; give a number", name)
}

func groupsOf(name string, group [][]string) []uint32 {
	var gids []uint32
	for _, f := range group {
		if len(f) < 4 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := parseID(f[2]); err == nil && member == name {
				gids = append(gids, gid)
			}
		}
	}
	return gids
}

// parseID reads an id that a container's range has.
func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if id >= uidsEach {
		return 0, fmt.Errorf("%d: %w", id, errRange)
	}
	return uint32(id), nil
}

// lookupUser resolves text with the files under root, a folder whose content
// is foreign: links lead nowhere outside.
func lookupUser(root, text string) (user, error) {
	inside, err := os.OpenRoot(root)
	if err != nil {
		return user{}, err
	}
	defer inside.Close()
	passwd, err := readColons(inside, "etc/passwd")
	if err != nil {
		return user{}, err
	}
	group, err := readColons(inside, "etc/group")
	if err != nil {
		return user{}, err
	}
	return parseUser(text, passwd, group)
}

// readColons reads lines of fields between colons; an absent file has none.
func readColons(root *os.Root, name string) ([][]string, error) {
	rows := [][]string{}
	info, err := root.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return rows, nil
	} else if err != nil {
		return nil, fmt.Errorf("the image's %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the image's %s is not a file", name)
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("the image's %s: %w", name, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, maxPasswd))
	for lines.Scan() {
		rows = append(rows, strings.Split(lines.Text(), ":"))
	}
	return rows, nil // a line beyond any length ends the file
}
