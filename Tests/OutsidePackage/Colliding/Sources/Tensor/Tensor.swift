public let nameOfTensor = "Tensor of another package"
