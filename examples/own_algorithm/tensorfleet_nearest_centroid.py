"""One more algorithm for TensorFleet: each class is the mean of its rows, and the nearest mean wins."""

from sklearn.neighbors import NearestCentroid

from tensorfleet.algorithms import Algorithm

NEAREST_CENTROID = Algorithm.of(
    "nearest_centroid",
    "Each class is the mean of its rows, and the nearest mean wins; a baseline that is hard to overfit.",
    "classification",
    NearestCentroid,
    refused={"priors": "they are taken from the training rows"},
    needs_dense=True,
)
