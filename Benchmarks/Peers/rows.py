"""What is compared, and the figures to reach."""

from pathlib import Path
from typing import NamedTuple

EMOJI = Path(__file__).resolve().parents[2] / "Sources/EmojiModel/Resources/emoji"
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OURS_AVX2 = {"LATENTDIFFUSION_KERNELS": "avx2"}


class Target(NamedTuple):
    """Ours takes at most this part of the seconds of the fastest of these peers. Without a part, the row is only compared."""

    most: float | None
    peers: tuple[str, ...]


class Row(NamedTuple):
    title: str
    part: str
    batch: int
    side: int
    targets: tuple[Target, ...]
    # Counted passes of a process: more for those that are over at once.
    repeats: int = 1
    # What make_model.py calls the shape of the model.
    shape: str = "sd15"
    # The embedded model, for the peers; ldm has its own.
    model: Path | None = None
    # Of a whole picture.
    steps: int | None = None
    # Of clips; the network is one with motion modules then.
    frames: int | None = None
    # What ldm is told besides.
    options: tuple[str, ...] = ()
    # The most memory that ours takes, if there is a figure to reach.
    gigabytes: float | None = None
    # What our process, and what the peers', find in the environment.
    environment: dict = {}
    peers_environment: dict = {}

    @property
    def peers(self):
        return list(dict.fromkeys(peer for target in self.targets for peer in target.peers))

    @property
    def peers_work(self):
        """What a peer is told. Rows that differ in more than ours are measured one by one."""
        ours = tuple(self.environment.items()) if "ours-float16" in self.peers else ()
        return (self.part, self.batch, self.side, self.repeats, self.shape, self.model, self.steps, self.frames,
                tuple(self.peers_environment.items()), ours)


class Memory(NamedTuple):
    """A whole `ldm txt2img`, or another command."""

    title: str
    side: int
    gigabytes: float
    options: tuple[str, ...] = ()
    # At most so many times the seconds of a run without these options.
    slowdown: float | None = None
    command: str = "txt2img"
    # None: as many as the command line says.
    steps: int | None = None


FLOAT = ("pytorch", "openvino")
MOTION = ("--motion-module", "{model}/motion")
SPEED = {
    "unet-2": Row("U-Net, 512×512, batch 2", "predictor", 2, 512, (Target(0.62, FLOAT),)),
    "unet-1": Row("U-Net, 512×512, batch 1", "predictor", 1, 512, (Target(0.70, FLOAT),)),
    "unet-2-768": Row("U-Net, 768×768, batch 2", "predictor", 2, 768, (Target(0.60, FLOAT),)),
    "vae-decode": Row("VAE decode, 512×512", "vae-decode", 1, 512, (Target(0.38, FLOAT),)),
    "vae-encode": Row("VAE encode, 512×512", "vae-encode", 1, 512, (Target(0.45, FLOAT),)),
    "text": Row("text encoder, one prompt", "text", 1, 512, (Target(1.0, FLOAT),), repeats=15),
    "picture": Row("picture, 512×512, 20 steps of DPM++ 2M, guidance 7.5", "picture", 1, 512, (Target(0.50, ("pytorch",)),), steps=20),
    "picture-fast": Row("the same, ours in 8 bits with `--step-cache 3`", "picture", 1, 512, (Target(0.20, ("pytorch",)),), steps=20,
                        options=("--weights", "q8", "--step-cache", "3")),
    "emoji": Row("picture of the embedded model", "picture", 1, 64, (Target(0.33, ("pytorch",)),), repeats=3, model=EMOJI),
    "unet-2-int8": Row("U-Net, 512×512, batch 2, ours in 8 bits", "predictor", 2, 512,
                       (Target(0.42, FLOAT), Target(0.90, ("openvino-int8",))), options=("--weights", "q8")),
    "unet-2-avx2": Row("U-Net, 512×512, batch 2, all with AVX2 only", "predictor", 2, 512, (Target(0.60, FLOAT),),
                       environment=OURS_AVX2, peers_environment=AVX2),
    "vae-decode-avx2": Row("VAE decode, 512×512, all with AVX2 only", "vae-decode", 1, 512, (Target(0.36, FLOAT),),
                           environment=OURS_AVX2, peers_environment=AVX2),
    "unet-2-int8-avx2": Row("U-Net, 512×512, batch 2, in 8 bits, all with AVX2 only", "predictor", 2, 512,
                            (Target(0.70, ("ours-float16",)), Target(1.0, ("openvino-int8",))), options=("--weights", "q8"),
                            environment=OURS_AVX2, peers_environment=AVX2),
    "emoji-avx2": Row("picture of the embedded model, all with AVX2 only", "picture", 1, 64, (Target(0.33, ("pytorch",)),), repeats=3, model=EMOJI,
                      environment=OURS_AVX2, peers_environment=AVX2),
    "unet-2-avxvnni": Row("U-Net, 512×512, batch 2, ours in 8 bits with AVX-VNNI", "predictor", 2, 512, (Target(0.50, ("ours-float16",)),),
                          options=("--weights", "q8"), environment={"LATENTDIFFUSION_KERNELS": "avxvnni"}),
    "unet-2-q4": Row("U-Net, 512×512, batch 2, weights of 4 bits", "predictor", 2, 512, (Target(1.10, ("ours-float16",)),),
                     options=("--weights", "q4_0")),
    "unet-1-q4": Row("U-Net, 512×512, batch 1, weights of 4 bits", "predictor", 1, 512, (Target(1.0, ("ours-float16",)),),
                     options=("--weights", "q4_0")),
    "sdxl-unet-2": Row("SDXL's U-Net, 1024×1024, batch 2", "predictor", 2, 1024, (Target(0.62, FLOAT),), shape="sdxl"),
    "sdxl-unet-1": Row("SDXL's U-Net, 512×512, batch 1", "predictor", 1, 512, (Target(0.70, FLOAT),), shape="sdxl"),
    "controlnet": Row("ControlNet, 512×512, batch 2", "controlnet", 2, 512, (Target(0.62, FLOAT),), options=("--controlnet", "{model}/controlnet")),
    "taesd-decode": Row("TAESD decode, 512×512", "vae-decode", 1, 512, (Target(0.50, FLOAT),), repeats=15, shape="sd-turbo"),
    "turbo-int8": Row("picture of SD-Turbo's shape, 512×512, one step, TAESD, all in 8 bits", "picture", 1, 512,
                      (Target(0.45, ("openvino-int8",)),), repeats=3, shape="sd-turbo", options=("--weights", "q8")),
    # Layers between frames take at most 15 % of the pass: it takes 1/0.85 of one over as many pictures.
    "clip": Row("AnimateDiff, 16 frames of 256×256, batch 2", "predictor", 2, 256, (Target(0.60, ("pytorch",)), Target(1.176, ("pictures",))),
                frames=16, options=MOTION),
    # A picture of four steps, which tells the three apart; five times four steps are long enough.
    "sdcpp-unet": Row("step with guidance, 512×512", "predictor", 2, 512, (Target(0.15, ("sdcpp",)),)),
    "sdcpp-decode": Row("VAE decode, 512×512 (theirs the first of its process)", "vae-decode", 1, 512, (Target(0.15, ("sdcpp",)),)),
    "sdcpp-picture": Row("picture, 512×512, 4 steps, guidance 7.5", "picture", 1, 512, (Target(0.15, ("sdcpp",)),), steps=4),
}
# Whole steps: forward, backward and update.
TRAINING = {
    "train-lora": Row("training LoRAs of rank 16, 512×512, batch 1", "train-lora", 1, 512, (Target(0.70, ("pytorch",)),), gigabytes=4.0),
    "train-lora-recompute": Row("the same, ours with `--recompute`", "train-lora", 1, 512, (Target(None, ("pytorch",)),), gigabytes=3.0,
                                options=("--recompute",)),
    "train-unet": Row("training the embedded model's whole U-Net, batch 32", "train-unet", 32, 64, (Target(0.60, ("pytorch",)),), repeats=5,
                      model=EMOJI),
    "train-autoencoder": Row("training the embedded model's autoencoder, 128×128, batch 16", "train-autoencoder", 16, 128,
                             (Target(0.60, ("pytorch",)),), repeats=5, model=EMOJI),
}
SPEED |= TRAINING
MEMORY = {
    "memory-default": Memory("512×512, default settings", 512, 2.6),
    "memory-1600MB": Memory("512×512, `--memory-limit 1600MB`", 512, 1.6, ("--memory-limit", "1600MB"), slowdown=1.5),
    "memory-q8": Memory("512×512, `--weights q8`", 512, 1.6, ("--weights", "q8")),
    "memory-600MB": Memory("512×512, `--memory-limit 600MB`", 512, 0.6, ("--memory-limit", "600MB")),
    "memory-1024": Memory("1024×1024, default settings", 1024, 3.2),
    "memory-clip": Memory("`ldm txt2video`, 16 frames of 512×512, default settings", 512, 4.5, (*MOTION, "--frames", "16"),
                          command="txt2video", steps=1),
    "memory-clip-2GB": Memory("the same, `--memory-limit 2GB`", 512, 2.0, (*MOTION, "--frames", "16", "--memory-limit", "2GB"),
                              command="txt2video", steps=1),
}
# From the start of the process to the end of loading.
START_SECONDS = 2.0
GROUPS = {"speed": [name for name in SPEED if name not in TRAINING], "training": list(TRAINING), "memory": [*MEMORY, "start"], "growth": ["growth"]}
NAMES = [name for group in GROUPS.values() for name in group]
