"""Exports a small network with PyTorch's own tools, in each of its formats, into
the folder that is the argument. net.pte lies in internal/serve/engine/executorch
as well, net.ts in internal/serve/engine/pytorch."""
import sys

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.line = torch.nn.Linear(8, 4)

    def forward(self, picture):
        seen = torch.relu(self.conv(picture)).mean((2, 3))
        return torch.softmax(self.line(seen), -1), seen


out = sys.argv[1]
torch.manual_seed(0)
net = Net().eval()
rows = torch.export.Dim("rows", min=1, max=8)
program = torch.export.export(net, (torch.ones(2, 3, 16, 16),), dynamic_shapes=({0: rows},))
for name, partitioner in (("net.pte", [XnnpackPartitioner()]), ("portable.pte", None)):
    lowered = to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch()
    with open(f"{out}/{name}", "wb") as f:
        f.write(lowered.buffer)
torch.jit.script(net).save(f"{out}/net.ts")
torch._inductor.config.compile_threads = 1
torch._inductor.aoti_compile_and_package(program, package_path=f"{out}/net.pt2")
torch.export.save(program, f"{out}/graph.pt2")
torch.save(net.state_dict(), f"{out}/weights.pt")
