"""What is asked and measured: the studies, training, evaluation, cost, records, and what is made of them."""
