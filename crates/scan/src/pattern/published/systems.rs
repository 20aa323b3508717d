//! The systems whose scans are in the table, and where each is described.

/// A published system.
#[derive(Debug)]
pub struct System {
    name: &'static str,
    title: &'static str,
    paper: &'static str,
    repository: &'static str,
}

impl System {
    /// What its scans are named after, before the slash.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its name as its authors write it.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// Its paper.
    pub fn paper(&self) -> &'static str {
        self.paper
    }

    /// The authors' repository, and the commit that the table is after.
    pub fn repository(&self) -> &'static str {
        self.repository
    }
}

const fn system(
    name: &'static str,
    title: &'static str,
    paper: &'static str,
    repository: &'static str,
) -> System {
    System { name, title, paper, repository }
}

static UNKNOWN: System = system("", "", "", "");

/// The system of a scan's name.
pub(super) fn of(scan: &str) -> &'static System {
    let name = scan.split('/').next().unwrap_or_default();
    SYSTEMS.iter().find(|system| system.name == name).unwrap_or(&UNKNOWN)
}

#[rustfmt::skip]
static SYSTEMS: &[System] = &[
    system("mamba", "Mamba", "arXiv 2312.00752", "state-spaces/mamba @ e9594ce1"),
    system("vim", "Vim", "arXiv 2401.09417", "hustvl/Vim @ dd0358ad"),
    system("vmamba", "VMamba", "arXiv 2401.10166", "MzeroMiko/VMamba @ 2ed52ead"),
    system("plainmamba", "PlainMamba", "arXiv 2403.17695", "ChenhongyiYang/PlainMamba @ 0975a1d0"),
    system("localmamba", "LocalMamba", "arXiv 2403.09338", "hunto/LocalMamba @ 75e5d1f0"),
    system("efficientvmamba", "EfficientVMamba", "arXiv 2403.09977", "TerryPei/EfficientVMamba @ 0bc5ee28"),
    system("zigma", "ZigMa", "arXiv 2403.13802", "CompVis/zigma @ 37d837bf"),
    system("videomamba", "VideoMamba", "arXiv 2403.06977", "OpenGVLab/VideoMamba @ f3427e42"),
    system("vivim", "Vivim", "arXiv 2401.14168", "scott-yjyang/Vivim @ 2bcd6190"),
    system("segmamba", "SegMamba", "arXiv 2401.13560", "ge-xing/SegMamba @ cff35970"),
    system("videomambasuite", "Video Mamba Suite", "arXiv 2403.09626", "OpenGVLab/video-mamba-suite @ ec9108b7"),
    system("mamband", "Mamba-ND", "arXiv 2402.05892", "jacklishufan/Mamba-ND @ 4f70284a"),
    system("pointmamba", "PointMamba", "arXiv 2402.10739", "LMD0311/PointMamba @ 80858e09"),
    system("mamba3d", "Mamba3D", "arXiv 2404.14966", "xhanxu/Mamba3D @ b519a9c4"),
    system("pcm", "Point Cloud Mamba", "arXiv 2403.00762", "SkyworkAI/PointCloudMamba @ 57fdb29d"),
    system("point-mamba", "Point Mamba (octree)", "arXiv 2403.06467", "IRMVLab/Point-Mamba @ e921ba80"),
    system("voxelmamba", "Voxel Mamba", "arXiv 2406.10700", "gwenzhang/Voxel-Mamba @ ad8172ae"),
    system("aum", "Audio Mamba (AuM)", "arXiv 2406.03344", "kaistmm/Audio-Mamba-AuM @ b0eb85d5"),
    system("ssamba", "SSAMBA", "arXiv 2405.11831", "SiavashShams/ssamba @ 019b276c"),
    system("ssam", "Audio Mamba (SSAM)", "arXiv 2406.02178", "SarthakYadav/audio-mamba-official @ e0cae4b6"),
    system("graphmamba", "Graph-Mamba", "arXiv 2402.00789", "bowang-lab/Graph-Mamba @ acb4a232"),
    system("rsmamba", "RSMamba", "arXiv 2403.19654", "KyanChen/RSMamba @ 3fa30563"),
    system("hydra", "Hydra", "arXiv 2407.09941", "goombalab/hydra @ 55bef745"),
    system("msvmamba", "MSVMamba", "arXiv 2405.14174", "YuHengsss/MSVMamba @ c3940191"),
    system("groupmamba", "GroupMamba", "arXiv 2407.13772", "Amshaker/GroupMamba @ c1800ed2"),
    system("grootv", "GrootV", "arXiv 2406.02395", "EasonXiao-888/GrootVL @ 0857f0a1"),
    system("grootl", "GrootL", "arXiv 2406.02395", "EasonXiao-888/GrootVL @ 0857f0a1"),
    system("spatialmamba", "Spatial-Mamba", "arXiv 2410.15091", "EdwardChasel/Spatial-Mamba @ 71221ebf"),
    system("defmamba", "DefMamba", "arXiv 2504.05794", "leiyeliu/DefMamba @ 3088a343"),
    system("quadmamba", "QuadMamba", "arXiv 2410.06806", "VISION-SJTU/QuadMamba @ 720ecc34"),
    system("mambair", "MambaIR", "arXiv 2402.15648", "csguoh/MambaIR @ 33d7b346"),
    system("mambairv2", "MambaIRv2", "arXiv 2411.15269", "csguoh/MambaIR @ 33d7b346"),
    system("changemamba", "ChangeMamba", "arXiv 2404.03425", "ChenHongruixuan/MambaCD @ 96c3240f"),
    system("s-d-mamba", "S-D-Mamba", "arXiv 2403.11144", "wzhwzhwzh0921/S-D-Mamba @ e7e8bf04"),
];
