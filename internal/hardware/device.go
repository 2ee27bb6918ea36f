package hardware

// Accelerator is filled in below.
type Accelerator struct{}
type Interface struct{}
type Disk struct{}
type Link struct{}
type Zone struct{}
type PowerLimit struct{}
type Frequency struct{}
