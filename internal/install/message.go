package install

import pb "oscine.dev/oscine/internal/api/oscinepb"

// Message is a disk as the API and the command-line tool show it.
func (d Disk) Message() *pb.Disk {
	m := &pb.Disk{Name: d.Name, Path: d.Path, Names: d.Names, Model: d.Model, SizeBytes: d.Size, Removable: d.Removable, Problem: d.Problem, Member: d.Member}
	for _, c := range d.Contents {
		if c.Problem != "" {
			c.Type, c.Label = "unreadable", c.Problem
		}
		m.Contents = append(m.Contents, &pb.DiskContent{Device: c.Device, Name: c.Name, SizeBytes: c.Size, Type: c.Type, Label: c.Label})
	}
	return m
}
