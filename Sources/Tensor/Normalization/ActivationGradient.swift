import CLatentDiffusionKernels

/// The gradients of functions of single elements, of gating and of softmax.
extension CPUEngine {
  public func activationGradient(_ activation: Activation, of x: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = Tensor(uninitialized: x.shape), columns = x.shape.columns
    try x.forRuns(in: context) { begin, rows in
      let offset = begin * columns
      Kernels.active.activate_back(
        activation.code, rows * columns, x.pointer + offset, gradient.pointer + offset, result.mutablePointer + offset)
    }
    return result
  }

  public func gated(_ sums: Tensor, columns: Int, in context: ExecutionContext) throws -> Tensor {
    let result = Tensor(uninitialized: Shape(sums.shape.dimensions.dropLast() + [columns])), width = sums.shape.columns
    try sums.forRuns(in: context) { begin, rows in
      forGatedPanels(columns) { panel, first, count in
        Kernels.active.geglu(
          rows, count, sums.pointer + begin * width + panel, width, PackedMatrix.panelWidth / 2,
          result.mutablePointer + begin * columns + first, columns)
      }
    }
    return result
  }

  public func gatedGradient(_ sums: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor {
    let (width, columns) = (sums.shape.columns, gradient.shape.columns)
    // Columns of the last panel without an output have no gradient.
    let result = columns % (PackedMatrix.panelWidth / 2) == 0 ? Tensor(uninitialized: sums.shape) : Tensor(repeating: 0, shape: sums.shape)
    try sums.forRuns(in: context) { begin, rows in
      forGatedPanels(columns) { panel, first, count in
        Kernels.active.geglu_back(
          rows, count, sums.pointer + begin * width + panel, width, PackedMatrix.panelWidth / 2,
          gradient.pointer + begin * columns + first, columns, result.mutablePointer + begin * width + panel)
      }
    }
    return result
  }

  /// The columns of gated results by panels: where a panel begins in the sums and in the results, and how many results it has.
  private func forGatedPanels(_ columns: Int, _ body: (_ panel: Int, _ first: Int, _ count: Int) -> Void) {
    let half = PackedMatrix.panelWidth / 2
    for first in stride(from: 0, to: columns, by: half) { body(2 * first, first, min(half, columns - first)) }
  }

  public func softmaxGradient(_ result: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = result.shape.columns, answer = Tensor(uninitialized: result.shape)
    try result.forRuns(in: context) { begin, rows in
      let target = answer.mutablePointer + begin * columns
      target.update(from: gradient.pointer + begin * columns, count: rows * columns)
      Kernels.active.softmax_back(rows, columns, 1, result.pointer + begin * columns, columns, target, columns)
    }
    return answer
  }
}
