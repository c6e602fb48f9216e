public let nameOfWeights = "Weights of another package"
