// Command oscine-nvml is the helper of the NVIDIA driver pack: it reports what only NVML knows of the node's
// GPUs, and divides them as the node decides. It reads and writes the documents of internal/hardware's driver
// programs:
//
//	oscine-nvml probe  < map.json       the GPUs and their state
//	oscine-nvml load   < addresses.json how busy they are
//	oscine-nvml events < addresses.json one line per event, until the input ends
//	oscine-nvml share  < request.json   divide one
package main
