package client

import (
	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/hardware"
)

// HardwareNews reads one message of Hardware.Watch.
func HardwareNews(m *pb.WatchHardwareResponse) (news hardware.News, err error) {
	if len(m.Json) > 0 {
		if news.Machine, err = hardware.Decode(m.Json); err != nil {
			return news, err
		}
	}
	for _, c := range m.Changes {
		news.Changes = append(news.Changes, hardware.Change{Device: c.Device, What: c.What, Reason: hardware.ChangeReason(c.Reason), Warning: c.Warning})
	}
	if l := m.Load; l != nil {
		news.Load = &hardware.Load{CPUs: map[int]float64{}, Used: map[int]hardware.Bytes{}, Devices: map[string]hardware.DeviceLoad{}}
		for id, share := range l.Cpus {
			news.Load.CPUs[int(id)] = float64(share)
		}
		for id, used := range l.UsedBytes {
			news.Load.Used[int(id)] = hardware.Bytes(used)
		}
		for id, d := range l.Devices {
			news.Load.Devices[id] = hardware.DeviceLoad{Busy: d.Busy, Used: hardware.Bytes(d.UsedBytes), Celsius: d.Celsius, Watts: d.Watts}
		}
		for _, z := range l.Thermal {
			news.Load.Thermal = append(news.Load.Thermal, hardware.Zone{Name: z.Name, Celsius: z.Celsius})
		}
	}
	return news, nil
}
