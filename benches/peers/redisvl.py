"""RedisVL, doing what `peers` asks of it: one JSON object a line in, one a line out.

{"op": ..., "calls": n} is answered with {"seconds": the median of a call's time}.
"""

import json
import random
import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")

from redisvl.extensions.cache.embeddings import EmbeddingsCache
from redisvl.extensions.cache.llm import SemanticCache
from redisvl.utils.vectorize import CustomTextVectorizer

DIMENSIONS = 384
TEXTS, TEXT_DIMENSIONS = 100, 1536
ANSWER = "plants turn light into sugar and oxygen. " * 24


def unit_vector(numbers, dimensions):
    vector = [numbers.gauss(0, 1) for _ in range(dimensions)]
    norm = sum(value * value for value in vector) ** 0.5
    return [value / norm for value in vector]


class Checked:
    """A semantic cache with so many entries."""

    def __init__(self, url, numbers, entries):
        self.vectors = {
            f"What is the answer to question {n}?": unit_vector(numbers, DIMENSIONS) for n in range(entries)
        }
        self.prompts = list(self.vectors)
        # Prepared vectors, as on the other side: only the cache is measured. It asks for one of its own to learn the
        # dimensions.
        other = unit_vector(numbers, DIMENSIONS)
        vectorizer = CustomTextVectorizer(embed=lambda text, **_: self.vectors.get(text, other))
        self.cache = SemanticCache(
            name=f"peers-semantic-{entries}", redis_url=url, vectorizer=vectorizer, distance_threshold=0.1
        )
        for prompt in self.prompts:
            self.cache.store(prompt=prompt, response=ANSWER, vector=self.vectors[prompt])

    def __call__(self, call):
        found = self.cache.check(prompt=self.prompts[call % len(self.prompts)])
        assert len(found) == 1 and found[0]["response"] == ANSWER


class Hundred:
    """A hundred embeddings, read at once."""

    def __init__(self, url, numbers):
        self.cache = EmbeddingsCache(name="peers-embeddings", redis_url=url)
        self.texts = [f"Passage {n}: " + "plants turn light into sugar. " * 8 for n in range(TEXTS)]
        self.cache.mset(
            [
                {"content": text, "model_name": "prepared", "embedding": unit_vector(numbers, TEXT_DIMENSIONS)}
                for text in self.texts
            ]
        )

    def __call__(self, _):
        found = self.cache.mget(self.texts, "prepared")
        assert len(found) == TEXTS and all(entry and len(entry["embedding"]) == TEXT_DIMENSIONS for entry in found)


def main(url, *sizes):
    numbers = random.Random(7)
    operations = {f"check{size}": Checked(url, numbers, int(size)) for size in sizes}
    operations["mget100"] = Hundred(url, numbers)
    print(json.dumps({}), flush=True)
    call = 0
    for line in sys.stdin:
        order = json.loads(line)
        operation, times = operations[order["op"]], []
        for _ in range(order["calls"]):
            call += 1
            start = time.perf_counter()
            operation(call)
            times.append(time.perf_counter() - start)
        print(json.dumps({"seconds": statistics.median(times)}), flush=True)


main(*sys.argv[1:])
