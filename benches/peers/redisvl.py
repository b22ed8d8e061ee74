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

ENTRIES, DIMENSIONS = 2000, 384
TEXTS, TEXT_DIMENSIONS = 100, 1536


def unit_vector(numbers, dimensions):
    vector = [numbers.gauss(0, 1) for _ in range(dimensions)]
    norm = sum(value * value for value in vector) ** 0.5
    return [value / norm for value in vector]


def main(url):
    numbers = random.Random(7)
    vectors = {f"What is the answer to question {n}?": unit_vector(numbers, DIMENSIONS) for n in range(ENTRIES)}
    prompts = list(vectors)
    # Prepared vectors, as on the other side: only the cache is measured.
    vectorizer = CustomTextVectorizer(embed=lambda text, **_: vectors[text], embed_many=None)
    semantic = SemanticCache(
        name="peers-semantic", redis_url=url, vectorizer=vectorizer, distance_threshold=0.1
    )
    answer = "plants turn light into sugar and oxygen. " * 24
    for prompt in prompts:
        semantic.store(prompt=prompt, response=answer, vector=vectors[prompt])

    embeddings = EmbeddingsCache(name="peers-embeddings", redis_url=url)
    texts = [f"Passage {n}: " + "plants turn light into sugar. " * 8 for n in range(TEXTS)]
    embeddings.mset(
        [{"content": text, "model_name": "prepared", "embedding": unit_vector(numbers, TEXT_DIMENSIONS)} for text in texts]
    )

    def mget100(_):
        found = embeddings.mget(texts, "prepared")
        assert len(found) == TEXTS and all(entry and len(entry["embedding"]) == TEXT_DIMENSIONS for entry in found)

    def check(call):
        found = semantic.check(prompt=prompts[call % ENTRIES])
        assert len(found) == 1 and found[0]["response"] == answer

    operations = {"mget100": mget100, "check": check}
    print(json.dumps({"ready": True}), flush=True)
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


main(sys.argv[1])
