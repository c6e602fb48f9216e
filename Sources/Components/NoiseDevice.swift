import Tensor

/// On which device other programs draw the random numbers of a seed.
public enum NoiseDevice: String, Sendable, CaseIterable {
  /// PyTorch's generator on a CPU.
  case cpu
  /// PyTorch's generator on an NVIDIA GPU that runs any number of threads (`PhiloxGenerator`): the webui's `NV`.
  case gpu

  /// The random numbers of a seed.
  public func source(seed: UInt64) -> any NoiseSource {
    switch self {
    case .cpu: TorchGenerator(seed: seed)
    case .gpu: PhiloxGenerator(seed: seed)
    }
  }
}

/// The stream of random numbers of a seed.
public typealias NoiseGenerator = @Sendable (_ seed: UInt64) -> any NoiseSource

extension PromptProfile {
  /// What the program draws noise with: that of the start, and that of steps which add some; nil: the start's generator goes on.
  ///
  /// ComfyUI draws the start on a CPU wherever it runs, and the steps where it runs: from the seed anew on a GPU, and from the next seed on a CPU.
  /// - Parameter device: nil: the program's own choice, which is a GPU for the webui and for ComfyUI's steps.
  public func noise(on device: NoiseDevice? = nil) -> (start: NoiseGenerator, steps: NoiseGenerator?) {
    switch self {
    case .diffusers, .compel: ({ (device ?? .cpu).source(seed: $0) }, nil)
    case .webui: ({ (device ?? .gpu).source(seed: $0) }, nil)
    case .comfy:
      (
        { NoiseDevice.cpu.source(seed: $0) },
        { device == .cpu ? NoiseDevice.cpu.source(seed: $0 &+ 1) : NoiseDevice.gpu.source(seed: $0) }
      )
    }
  }
}
