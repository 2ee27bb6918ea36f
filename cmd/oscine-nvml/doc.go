// Command oscine-nvml is the helper of the NVIDIA driver pack: it tells the
// node of NVIDIA's GPUs what only NVML knows, and divides them as the node
// decides. It reads and writes the documents of internal/hardware's driver
// programs:
//
//	oscine-nvml probe  < map.json       what the GPUs are and how they fare
//	oscine-nvml load   < addresses.json how busy they are
//	oscine-nvml events < addresses.json a line for each event, until the input ends
//	oscine-nvml share  < request.json   divide one
package main
