package linux

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ioctls of include/uapi/linux/fs.h and commands of quotactl_fd(2), from
// include/uapi/linux/quota.h and dqblk_xfs.h.
const (
	getAttributes   = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes   = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherits = 0x200      // FS_XFLAG_PROJINHERIT

	projectQuota = 2
	getQuota     = 0x800007
	setQuota     = 0x800008
	quotaState   = 0x5808 // Q_XGETQSTATV
	enforced     = 1 << 5 // FS_QUOTA_PDQ_ENFD

	blockLimits = 1    // QIF_BLIMITS
	inodeLimits = 4    // QIF_ILIMITS
	quotaBlock  = 1024 // bytes of a limit's unit
)

// attributes is struct fsxattr.
type attributes struct {
	Flags, ExtentSize, Extents, Project, CowExtentSize uint32
	_                                                  [8]byte
}

// projectQuotaBlock is struct if_dqblk.
type projectQuotaBlock struct {
	HardLimit, SoftLimit, Space, InodeHard, InodeSoft, Inodes, BlockTime, InodeTime uint64
	Valid                                                                           uint32
	_                                                                               uint32
}

// Project returns the project of an open file or folder, 0 for none.
func Project(f *os.File) (uint32, error) {
	var a attributes
	if err := ioctl(int(f.Fd()), getAttributes, unsafe.Pointer(&a)); err != nil {
		return 0, fmt.Errorf("read the attributes of %s: %w", f.Name(), err)
	}
	return a.Project, nil
}

// SetProject puts an open file or folder into a project, whose members are
// counted together; what is made in a folder from then on belongs to it too.
// ext4 and XFS know projects.
func SetProject(f *os.File, project uint32) error {
	var a attributes
	if err := ioctl(int(f.Fd()), getAttributes, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("read the attributes of %s: %w", f.Name(), err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.Project = project
	if info.IsDir() {
		a.Flags |= projectInherits
	}
	if err := ioctl(int(f.Fd()), setAttributes, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("put %s into project %d: %w", f.Name(), project, err)
	}
	return nil
}

// ProjectsLimited reports whether the file system of an open file enforces
// limits of projects.
func ProjectsLimited(f *os.File) bool {
	state := [512]byte{0: 1} // struct fs_quota_statv, qs_version 1
	err := quotactl(f, quotaState, 0, unsafe.Pointer(&state))
	return err == nil && binary.NativeEndian.Uint16(state[2:])&enforced != 0
}

// LimitProject bounds the bytes and inodes of a project on the file system of an
// open file; 0 sets no bound.
func LimitProject(f *os.File, project uint32, bytes, inodes int64) error {
	q := projectQuotaBlock{Valid: blockLimits | inodeLimits}
	if bytes > 0 {
		q.HardLimit = uint64(bytes+quotaBlock-1) / quotaBlock
	}
	if inodes > 0 {
		q.InodeHard = uint64(inodes)
	}
	if err := quotactl(f, setQuota, project, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("limit project %d of %s: %w", project, f.Name(), err)
	}
	return nil
}

// ProjectUsage returns the bytes and inodes that a project holds.
func ProjectUsage(f *os.File, project uint32) (bytes, inodes int64, err error) {
	var q projectQuotaBlock
	if err := quotactl(f, getQuota, project, unsafe.Pointer(&q)); err != nil {
		return 0, 0, fmt.Errorf("usage of project %d of %s: %w", project, f.Name(), err)
	}
	return int64(q.Space), int64(q.Inodes), nil
}

func quotactl(f *os.File, command, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
