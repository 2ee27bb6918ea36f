package hardware

// Link is a connection between two devices beside or within the PCI tree.
type Link struct {
	A string `json:"a"` // an accelerator's ID, or a PCI address
	B string `json:"b"`
	// Kind is nvlink, xgmi, c2c or what a driver names.
	Kind  string `json:"kind"`
	Count int    `json:"count"` // parallel links
	// BytesPerSecond is of all of them together in one direction, 0 where
	// unknown.
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty"`
	Source         string  `json:"source,omitempty"` // the file that tells of it
}
