package render

// style is the look: one colour for each kind of thing, on dark blue or, where
// the viewer asks for it, on white.
const style = `
text{font-family:"Inter","Helvetica Neue","DejaVu Sans",Arial,sans-serif;fill:#dfe8f5}
.h1{font-weight:700;fill:#fff}.h2{fill:#9db2cf}.n{fill:#9db2cf}.t{font-weight:600}
.tag{font-size:10.5px;fill:#8fd6ff}.bad{fill:#ff8a7a;font-weight:700}
rect{stroke-width:1;fill:#1b2a40;stroke:#4a6288}
.sky{fill:url(#sky);stroke:none}
.package{fill:#13233a;stroke:#35557f;stroke-width:1.6}
.die,.cluster{fill:#16294488;stroke:#2f4a70}
.cache{fill:#1a2f4d;stroke:#3f5f8f}.cache-t{fill:#b9cdf0}
.core{fill:#2a4a78;stroke:#5f86c4}.core-t{fill:#eaf1fc}
.performance{fill:#7a4a12;stroke:#f0a94a}.performance-t{fill:#ffdca8}
.efficiency{fill:#1d5a3c;stroke:#57c78c}.efficiency-t{fill:#c4f3da}
.low-power{fill:#3c4657;stroke:#8c9ab0}.low-power-t{fill:#d5dce8}
.off{fill:#1a2230;stroke:#39445a;stroke-dasharray:3 2}.off-t{fill:#66748c}
.dram{fill:#0f4a4f;stroke:#35b3ae}.dram-t{fill:#b6f2ec}
.hbm{fill:#5b3413;stroke:#ffab5c}.hbm-t{fill:#ffdcb8}
.nvm{fill:#3d2b5e;stroke:#a98be6}.nvm-t{fill:#dccdf9}
.memcache{fill:#123d52;stroke:#3f9bc4}.memcache-t{fill:#bde6f8}
.root{fill:#0f1c2f;stroke:#2c4263}.root-t{fill:#8ea6c8}
.switch{fill:#152742;stroke:#3a5885}.switch-t{fill:#a9c0e2}
.gpu{fill:#1f4d1a;stroke:#7fd45f;stroke-width:1.5}.gpu-t{fill:#d9f8cd}
.tpu,.npu,.neuromorphic,.quantum{fill:#4d1a46;stroke:#e27fd3;stroke-width:1.5}.tpu-t,.npu-t,.neuromorphic-t,.quantum-t{fill:#fbd7f5}
.fpga,.vector,.video,.crypto,.accelerator{fill:#4d3a1a;stroke:#e0b45f;stroke-width:1.5}.fpga-t,.vector-t,.video-t,.crypto-t,.accelerator-t{fill:#faebc8}
.net{fill:#123f57;stroke:#4fb6e6}.net-t{fill:#c9ecfc}
.disk{fill:#2c3546;stroke:#8593ab}.disk-t{fill:#d8e0ec}
.lost{fill:#3a1d1d;stroke:#ff8a7a;stroke-dasharray:4 3}
.fabric{fill:#24401c;stroke:#9be07c}.fabric-t{fill:#e4fbd8}
.link{fill:none;stroke:#9be07c;stroke-opacity:.75}
.cell{fill:#00000040;stroke:none}.joined{fill:#7fd45f;stroke:none}
.sky0{stop-color:#0e1b30}.sky1{stop-color:#070d18}
@media (prefers-color-scheme:light){
text{fill:#16233a}
.h1{fill:#0b1526}.h2,.n{fill:#4a5b74}
.tag{fill:#0a5d8f}.bad{fill:#b3261e}
rect{fill:#eef2f8;stroke:#8ea2c0}
.package{fill:#f5f8fc;stroke:#9fb4d2}
.die,.cluster{fill:#e7edf688;stroke:#b5c4da}
.cache{fill:#e3ebf7;stroke:#9db3d6}.cache-t{fill:#27406b}
.core{fill:#c9d9f2;stroke:#6d8fc6}.core-t{fill:#12284d}
.performance{fill:#ffe2b8;stroke:#c77d17}.performance-t{fill:#5a3500}
.efficiency{fill:#c9f0dc;stroke:#2f9a62}.efficiency-t{fill:#0d4529}
.low-power{fill:#dfe4ec;stroke:#8390a6}.low-power-t{fill:#313c4e}
.off{fill:#eceff4;stroke:#aab4c4}.off-t{fill:#66748c}
.dram{fill:#cdf1ee;stroke:#23918d}.dram-t{fill:#06403d}
.hbm{fill:#ffe0c2;stroke:#c96f1c}.hbm-t{fill:#5b2f06}
.nvm{fill:#e6dcfa;stroke:#7a58bd}.nvm-t{fill:#33205c}
.memcache{fill:#d3ecf8;stroke:#2f86ad}.memcache-t{fill:#0b3b52}
.root{fill:#eef3fa;stroke:#b3c3db}.root-t{fill:#47597a}
.switch{fill:#e4ecf8;stroke:#93aad0}.switch-t{fill:#2b4470}
.gpu{fill:#d6f3cb;stroke:#4a9a2c}.gpu-t{fill:#16400a}
.tpu,.npu,.neuromorphic,.quantum{fill:#f8dcf4;stroke:#b04a9f}.tpu-t,.npu-t,.neuromorphic-t,.quantum-t{fill:#551049}
.fpga,.vector,.video,.crypto,.accelerator{fill:#faedcf;stroke:#b3862a}.fpga-t,.vector-t,.video-t,.crypto-t,.accelerator-t{fill:#553b05}
.net{fill:#d3ecf9;stroke:#2487b8}.net-t{fill:#073c57}
.disk{fill:#e6eaf0;stroke:#76849c}.disk-t{fill:#29344a}
.lost{fill:#fde4e1;stroke:#b3261e}
.fabric{fill:#e9f7e2;stroke:#5a9c3d}.fabric-t{fill:#1d4a0c}
.link{stroke:#3d8a20}
.cell{fill:#00000014}.joined{fill:#4a9a2c}
.sky0{stop-color:#ffffff}.sky1{stop-color:#eef2f7}
}
`
